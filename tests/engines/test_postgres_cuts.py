"""Every method of the PostgreSQL engine may lose its answer at every round trip, and be called again.

The proxy cuts the answer to the first piece that a call sends; in the next round that to the second one, and so on,
until a call has no more. A cut answer may be that of the commit, so what the call did may be stored or not.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import ParamSpec, TypeVar

import pytest

from afterwards import EngineUnavailable, State
from afterwards.core.progress import Progress
from afterwards.core.task import FailureKind, Lease, Task
from afterwards.engine import Chunk, Engine, Fire, Heartbeat, LiveWorker, Paused, Query
from afterwards.engines import shared
from afterwards.testing.conformance.support import FAILURE, RETRY, SUCCESS, Conformance, ids
from servers.postgres import PostgresServer
from servers.proxy import Cut, Proxy

TIMEOUT = 60.0
SHORT = timedelta(milliseconds=50)
NOT_WAITING = timedelta()

P = ParamSpec("P")
R = TypeVar("R")


class Round:
    """One call whose answer is cut at one place."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        self.name = f"task_{number}"  # of the tasks of this round
        self._proxy = proxy
        self._number = number
        self._after = 20 * (number % 2)  # before the first byte of the answer, or in its middle

    async def repeat(self, call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call, with one answer cut, and again as long as the store is said to be away. Returns the last answer."""
        deadline = time.monotonic() + TIMEOUT
        with self._cut():
            while True:
                try:
                    return await call(*args, **kwargs)
                except EngineUnavailable:
                    assert time.monotonic() < deadline, "it stays away"

    @contextmanager
    def _cut(self) -> Iterator[None]:
        pieces = count()
        self._proxy.cut(Cut(after=self._after, asked=lambda _: next(pieces) == self._number))
        try:
            yield
        finally:
            self._proxy.forget_cuts()


@pytest.mark.afterwards(real=True)
class TestAnAnswerIsCut(Conformance):
    @pytest.fixture
    def proxy(self, postgres: PostgresServer) -> Iterator[Proxy]:
        with Proxy(postgres.port) as proxy:
            yield proxy

    @pytest.fixture
    async def engine(self, proxy: Proxy, postgres_url: str, postgres: PostgresServer) -> AsyncIterator[Engine]:
        async with shared(postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")) as engine:
            yield engine

    @pytest.fixture
    def rounds(self, proxy: Proxy) -> Iterator[Round]:
        """The rounds, until one in which the call had no answer left to cut."""

        def rounds() -> Iterator[Round]:
            for number in count():
                taken = proxy.cuts_taken  # the engine's listener may have taken one, whose answer comes later
                yield Round(proxy, number)
                if proxy.cuts_taken == taken:
                    assert number > 0, "nothing was ever cut"
                    return

        return rounds()

    async def named(self, engine: Engine, name: str) -> list[Task]:
        """All tasks of a round, in the order stored."""
        return (await engine.find(Query(names=frozenset({name}))))[::-1]

    async def running_now(self, engine: Engine, name: str, number: int, **fields: timedelta) -> list[Task]:
        await engine.enqueue([self.task(name) for _ in range(number)])
        tasks = await self.claim(engine, names=[name], **fields)
        assert len(tasks) == number
        return tasks

    async def test_of_an_enqueue(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            first, keyed = self.task(round.name), self.task(round.name, idempotency_key=round.name)
            behind = self.task(round.name, after=first.id)
            stored = await round.repeat(engine.enqueue, [first, keyed, behind])
            assert ids(stored) == ids([first, keyed, behind])
            assert stored == await self.named(engine, round.name) == await engine.get(ids(stored))
            again = self.task(round.name, idempotency_key=round.name)
            [answer] = await engine.enqueue([again])
            assert answer.id == keyed.id and len(await self.named(engine, round.name)) == 3

    async def test_of_an_enqueue_with_a_claim(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            new = self.task(round.name)
            claim = self.claim_for(names=[round.name])
            [stored] = await round.repeat(engine.enqueue, [new], claim=claim)
            if stored.state is State.RUNNING:
                await self.succeed(engine, stored)  # a lease that the caller was told of is not given back
            await self.run_all(engine, round.name)
            [task] = await self.named(engine, round.name)
            assert ended_once(task)

    async def test_of_a_publish(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            held = self.task(round.name, held=True, wait=timedelta(minutes=1))
            await engine.enqueue([held])
            await round.repeat(engine.publish, [(Lease(held.id, 0), None)])
            assert await self.states(engine, held) == [State.QUEUED]

    async def test_of_a_claim(self, engine: Engine, rounds: Iterator[Round]) -> None:
        """Those that the answer was about are run all the same: their leases run out, unless they were given back."""
        for round in rounds:
            new = [self.task(round.name) for _ in range(3)]
            await engine.enqueue(new)
            await round.repeat(self.claim, engine, names=[round.name], lease=SHORT)
            await self.run_all(engine, round.name)
            tasks = await engine.get(ids(new))
            assert [task.state for task in tasks] == [State.SUCCEEDED] * 3
            assert all(map(ended_once, tasks))

    async def test_of_a_dispatch(self, engine: Engine, rounds: Iterator[Round]) -> None:
        """If the answer was lost, the tasks may be on their way for all that the engine knows. They are sent again."""
        for round in rounds:
            new = [self.task(round.name) for _ in range(3)]
            await engine.enqueue(new)
            ahead, again = self.claim_for("dispatcher", names=[round.name]), timedelta(hours=1)
            sent = (await round.repeat(engine.dispatch, ahead, again=again)).tasks
            wanted = {Lease(task.id, 1) for task in new}
            assert {one.lease for one in sent} in (wanted, set())
            if sent:
                assert (await engine.dispatch(ahead, again=again)).tasks == []
            rest = await engine.dispatch(ahead, again=NOT_WAITING)
            async with asyncio.timeout(TIMEOUT):
                while rest.more and not rest.tasks:  # the call that was cut may have its turn for a moment
                    rest = await engine.dispatch(ahead, again=NOT_WAITING)
            assert {one.lease for one in rest.tasks} == wanted

    async def test_of_a_claim_of_what_was_dispatched(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            new = self.task(round.name)
            await engine.enqueue([new])
            ahead, again = self.claim_for("dispatcher", names=[round.name]), timedelta(hours=1)
            await engine.dispatch(ahead, again=again)
            claim = self.claim_for("fleet", names=[round.name], starts=[Lease(new.id, 1)], lease=SHORT)
            await round.repeat(engine.claim, claim)
            await self.run_all(engine, round.name)
            [task] = await self.named(engine, round.name)
            assert ended_once(task)

    async def run_all(self, engine: Engine, name: str) -> None:
        """Do the work of a worker, and take over what nobody holds any more."""
        deadline = time.monotonic() + TIMEOUT
        while not all(task.state.finished for task in await self.named(engine, name)):
            assert time.monotonic() < deadline, await self.named(engine, name)
            lost = [task for task in await engine.expired(100) if task.name == name]
            await self.lose(engine, lost)  # those that were given back meanwhile are refused
            await self.succeed(engine, *await self.claim(engine, names=[name], suspects=10))

    async def test_of_a_heartbeat(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            [task] = await self.running_now(engine, round.name, 1)
            beat = Heartbeat(task.lease, Progress(done=1, description="so far"))
            [held] = await round.repeat(engine.heartbeat, [beat], lease=timedelta(hours=1))
            assert held.lease == task.lease
            now = await self.one(engine, task)
            assert now.progress == Progress(done=1, description="so far")
            assert now.lease_until and task.lease_until and now.lease_until > task.lease_until + timedelta(minutes=30)

    async def test_of_a_finish(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            well, badly, again, left = await self.running_now(engine, round.name, 4)
            after_well, after_badly = (self.task(round.name, after=task.id) for task in (well, badly))
            await engine.enqueue([after_well, after_badly])
            then = self.task(round.name)
            settled = [self.settled(well, SUCCESS), self.settled(badly, FAILURE), self.settled(again, RETRY)]
            settled.append(replace(self.settled(left, SUCCESS), then=then))
            refused = await round.repeat(engine.finish, settled)
            assert refused in ([], [task.lease for task in (well, badly, again, left)]), "all or none"
            assert await self.states(engine, well, badly, again, left, after_well, after_badly, then) == [
                State.SUCCEEDED,
                State.FAILED,
                State.SCHEDULED,
                State.SUCCEEDED,
                State.QUEUED,
                State.CANCELLED,
                State.QUEUED,
            ]
            assert len(await self.named(engine, round.name)) == 7
            for task, failures in ((well, 0), (badly, 1), (again, 1), (left, 0)):
                now = await self.one(engine, task)
                assert (now.attempt, len(now.failures), now.failed) == (1, failures, failures)

    async def test_of_a_cancel(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            [running] = await self.running_now(engine, round.name, 1)
            queued = self.task(round.name)
            behind = self.task(round.name, after=queued.id)
            await engine.enqueue([queued, behind])
            told = await round.repeat(engine.cancel, ids([running, queued]), "enough")
            assert [task.state for task in told] == [State.RUNNING, State.CANCELLED]
            assert told[0].cancel_requested == "enough"
            assert await self.states(engine, behind) == [State.CANCELLED]

    async def test_of_a_requeue(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            failed = await self.ended(engine, FAILURE, name=round.name)
            await round.repeat(engine.requeue, [failed.id])
            [task] = await self.claim(engine, names=[round.name])
            assert (task.id, task.attempt) == (failed.id, 2)
            assert await self.claim(engine, names=[round.name]) == []

    async def test_of_a_start_now(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            later = self.task(round.name, wait=timedelta(hours=1))
            await engine.enqueue([later])
            await round.repeat(engine.start_now, [later.id])
            assert await self.states(engine, later) == [State.QUEUED]

    async def test_of_a_delete(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            gone, kept = await self.ended(engine, name=round.name), self.task(round.name)
            file = self.task().id
            await engine.write_chunks([Chunk(file=file, task=gone.id, number=0, content=b"x")])
            await engine.enqueue([kept])
            await round.repeat(engine.delete, ids([gone, kept]))
            assert ids(await self.named(engine, round.name)) == [kept.id]

    async def test_of_a_fire(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            [kept] = [one for one in await engine.register_schedules({round.name: "every 1"}) if one.name == round.name]
            fire = Fire(round.name, kept.after + timedelta(seconds=1), self.task(round.name))
            await round.repeat(engine.fire, [fire])
            [fired] = await self.named(engine, round.name)
            assert fired.id == fire.task.id
            [kept] = [one for one in await engine.register_schedules({}) if one.name == round.name]
            assert kept.last_fire == fire.at

    async def test_of_schedules_and_pauses(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            paused = Paused(queues=frozenset({round.name}), schedules=frozenset({round.name}))

            async def all_of_it(round: Round = round, paused: Paused = paused) -> None:
                registered = await engine.register_schedules({round.name: "every 1"})
                assert round.name in {one.name for one in registered}
                await engine.pause(paused)
                assert paused.queues <= (await engine.paused()).queues
                await engine.resume(Paused(queues=paused.queues))

            await round.repeat(all_of_it)
            now = await engine.paused()
            assert round.name not in now.queues and round.name in now.schedules

    async def test_of_files(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            task, file = self.task(round.name), self.task().id
            chunks = [Chunk(file=file, task=task.id, number=number, content=b"x" * 9) for number in range(3)]

            async def all_of_it(file: str = file, chunks: list[Chunk] = chunks) -> None:
                await engine.write_chunks(chunks)
                assert await engine.read_chunks(file, start=0, limit=9) == [b"x" * 9] * 3

            await round.repeat(all_of_it)
            await round.repeat(engine.delete_files, [task.id])
            async with asyncio.timeout(TIMEOUT):
                while await engine.read_chunks(
                    file, start=0, limit=9
                ):  # the call that was cut may hold them for a moment
                    await engine.delete_files([task.id])

    async def test_of_the_roster(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            worker = LiveWorker(
                id=round.name, host="h", pid="1", started_at=datetime.now(UTC), names=frozenset({round.name})
            )

            async def all_of_it(round: Round = round, worker: LiveWorker = worker) -> None:
                await engine.announce([worker])
                assert [one.id for one in await engine.workers(timedelta(hours=1))].count(round.name) == 1
                await engine.unroutable(timedelta())

            await round.repeat(all_of_it)

    async def test_of_a_prune(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            over = await self.ended(engine, name=round.name, retention=NOT_WAITING)
            kept = await self.ended(engine, name=round.name)
            await round.repeat(engine.prune, 100)
            async with asyncio.timeout(TIMEOUT):
                while await engine.get([over.id]):  # the call that was cut may hold it for a moment
                    await engine.prune(100)
            assert ids(await self.named(engine, round.name)) == [kept.id] != [over.id]

    async def test_of_a_question(self, engine: Engine, rounds: Iterator[Round]) -> None:
        for round in rounds:
            new = self.task(round.name)
            await engine.enqueue([new])

            async def all_of_it(round: Round = round) -> list[Task]:
                assert (await engine.stats()).counts
                assert await engine.count(Query(names=frozenset({round.name}))) == 1
                assert await engine.tallies(timedelta(hours=1), timedelta(minutes=1)) == []
                assert await engine.expired(10) == []
                return await engine.find(Query(names=frozenset({round.name})))

            assert ids(await round.repeat(all_of_it)) == [new.id]


def ended_once(task: Task) -> bool:
    """Each attempt of a task that succeeded has ended once, and those before the last one were lost or given back."""
    lost = [failure.attempt for failure in task.failures]
    kinds = {failure.kind for failure in task.failures}
    return (
        task.state is State.SUCCEEDED
        and set(lost) <= set(range(1, task.attempt))
        and len(set(lost)) == len(lost)
        and kinds <= {FailureKind.CRASHED, FailureKind.RELEASED}
    )
