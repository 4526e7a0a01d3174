"""A store that is closed and opened again, or opened twice."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest

from afterwards.core.limits import Limit, Rate
from afterwards.core.routing import LiveWorker
from afterwards.core.task import Lease, State
from afterwards.engine import Chunk, Engine, Fire, Heartbeat, Held, Paused, Query
from afterwards.testing.clock import START
from afterwards.testing.conformance.support import FAILURE, HALF, LEASE, RETRY, SOON, SUCCESS, Conformance, ids

Open = Callable[[], AbstractAsyncContextManager[Engine]]
"""A function that opens the store of a test: empty the first time, and the same store each time."""


class ReopeningConformance(Conformance):
    """Data stored in an engine exists for the next process, and for another one.

    class TestMyStore(ReopeningConformance):
        @pytest.fixture
        def open(self, clock: FakeClock, tmp_path: Path) -> Open:
            return lambda: MyEngine(tmp_path / "tasks", clock=clock)
    """

    @pytest.fixture
    def open(self) -> Open:
        raise NotImplementedError("give your class a fixture `open`: a function that opens the same store each time")

    async def test_tasks_are_there_as_they_were_stored(self, open: Open) -> None:
        async with open() as engine:
            running = await self.running(engine, limit_key="ada", context='{"a": "b"}', overrides='{"retries": 3}')
            await engine.heartbeat([Heartbeat(running.lease, HALF)], lease=LEASE)
            await self.ended(engine, FAILURE, retention=timedelta.max)
            await self.ended(engine, RETRY)
            await engine.enqueue([self.task(held=True), self.task(after=running.id), self.task(expires=SOON)])
            await engine.cancel([running.id], "not wanted")
            stored = await engine.get(ids(await engine.find(Query())))
        async with open() as engine:
            assert await engine.get(ids(await engine.find(Query()))) == stored
            assert len(stored) == 6

    async def test_a_lease_holds_and_a_late_one_is_refused(self, open: Open) -> None:
        async with open() as engine:
            late = await self.running(engine)
            await self.lose_at_once(engine)
            [task] = await self.claim(engine)
        async with open() as engine:
            assert await engine.heartbeat([Heartbeat(late.lease), Heartbeat(task.lease)], lease=LEASE) == [
                Held(task.lease)
            ]
            assert await self.finish(engine, late, SUCCESS) == [late.lease]
            assert await self.finish(engine, task, SUCCESS) == []

    async def test_what_was_dispatched_is_on_its_way_also_for_another_dispatcher(self, open: Open) -> None:
        ahead = self.claim_for("dispatcher")
        async with open() as engine:
            [task] = await engine.enqueue([self.task()])
            assert len((await engine.dispatch(ahead, again=SOON)).tasks) == 1
        async with open() as engine, open() as other:
            assert await other.dispatch(ahead, again=SOON) == ([], False)
            assert await engine.claim(self.claim_for("fleet", limit=0, starts=[Lease(task.id, 1)])) == []
            assert len((await other.dispatch(ahead, again=SOON)).tasks) == 1
            assert await engine.dispatch(ahead, again=SOON) == ([], False)

    async def test_keys_and_ids_of_answered_calls_are_remembered(self, open: Open) -> None:
        twin, again = self.task(unique_key="one"), self.task(unique_key="one")
        async with open() as engine:
            [task] = await engine.enqueue([self.task(unique_key="one", idempotency_key="this")])
            await engine.enqueue([twin])
        async with open() as engine:
            assert await engine.get([twin.id]) == [task]
            assert await engine.enqueue([again, self.task(idempotency_key="this")]) == [task, task]

    async def test_schedules_and_pauses_are_remembered(self, open: Open) -> None:
        fire = Fire("greet", START + SOON, self.task())
        paused = Paused(queues=frozenset({"mail"}), names=frozenset({"greet"}), schedules=frozenset({"thank"}))
        async with open() as engine:
            await engine.register_schedules({"greet": "a", "thank": "b"})
            await engine.fire([fire])
            await engine.pause(paused)
            kept = await engine.register_schedules({})
        async with open() as engine:
            assert await engine.register_schedules({"greet": "a"}) == kept
            assert await engine.fire([Fire("greet", fire.at, self.task())]) == []
            assert await engine.paused() == paused

    async def test_starts_count_against_a_rate(self, open: Open) -> None:
        limits = {"greet": Limit(rate=Rate(1, SOON))}
        async with open() as engine:
            await engine.enqueue([self.task(), self.task()])
            assert len(await self.claim(engine, limits=limits)) == 1
        async with open() as engine:
            assert await self.claim(engine, limits=limits) == []

    async def test_files_and_workers_are_remembered(self, open: Open) -> None:
        file = self.task().id
        worker = LiveWorker(id="w", host="h", pid="1", started_at=START, names=frozenset({"greet"}))
        async with open() as engine:
            await engine.write_chunks([Chunk(file=file, task=self.task().id, number=0, content=bytes(range(256)))])
            await engine.announce([worker])
            seen = await engine.workers(SOON)
        async with open() as engine:
            assert await engine.read_chunks(file, start=0, limit=1) == [bytes(range(256))]
            assert await engine.workers(SOON) == seen

    async def test_two_that_are_open_share_all_that_is_stored(self, open: Open) -> None:
        async with open() as one, open() as other:
            stored = await one.enqueue([self.task()]) + await other.enqueue([self.task()])
            assert ids(await other.find(Query())) == ids(stored[::-1])
            [first] = await self.claim(one, limit=1)
            [second] = await self.claim(other)
            assert ids([first, second]) == ids(stored)
            await one.pause(Paused(names=frozenset({"greet"})))
            assert await self.finish(other, first, SUCCESS) == []
            assert await self.finish(one, first, SUCCESS) == [first.lease]
            [refused] = await other.enqueue([self.task()], claim=self.claim_for())
            assert refused.state is State.QUEUED

    async def lose_at_once(self, engine: Engine) -> None:
        """Give up running tasks as if their leases had run out: they are renewed for no time."""
        running = await engine.find(Query(states=frozenset({State.RUNNING})))
        await engine.heartbeat([Heartbeat(task.lease) for task in running], lease=timedelta())
        assert await self.lose(engine, await engine.expired(limit=10)) == []
