"""Moving everything from one engine to another: nothing is lost, nothing is doubled, nothing is changed."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from afterwards.core.limits import Limit, Rate
from afterwards.core.schedule import StoredSchedule
from afterwards.core.settling import Cancelled, SetAside
from afterwards.core.task import LogLine, State, Task
from afterwards.engine import Batch, Chunk, Engine, Fire, Heartbeat, Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import (
    ALL,
    FAILURE,
    LEASE,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
    ids,
)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ONCE_A_DAY = {"greet": Limit(rate=Rate(1, DAY))}
HOURLY = {"greet": "every 1:00:00", "thank": "every 2:00:00"}
EVERYTHING = 1000
"""More records than any test has."""


@dataclass(frozen=True)
class Contents:
    """Everything that can be asked of an engine without a change."""

    tasks: list[Task]
    paused: Paused
    schedules: list[StoredSchedule]
    files: list[list[bytes]]


class Moving(Conformance):
    """Each batch is in the source until it is in the destination, and is taken over once.

    The other engine of each move is the one in memory, unless a subclass has another fixture ``other``.
    """

    @pytest.fixture
    def other(self, clock: FakeClock) -> Engine:
        return MemoryEngine(clock=clock)

    async def move(self, source: Engine, destination: Engine, *, limit: int = 2) -> list[Batch]:
        """Move all records. Returns the batches."""
        batches: list[Batch] = []
        done = None
        while (batch := await source.hand_over("there", limit=limit, done=done)) or done:
            if batch:
                await destination.take_over(batch)
                batches.append(batch)
            done = batch
        return batches

    async def contents(self, engine: Engine, *files: str) -> Contents:
        listed = await engine.find(Query(limit=EVERYTHING))
        return Contents(
            tasks=await engine.get(ids(listed)[::-1]),
            paused=await engine.paused(),
            schedules=await engine.register_schedules({}),
            files=[await engine.read_chunks(file, start=0, limit=EVERYTHING) for file in files],
        )

    async def everything(self, engine: Engine, clock: FakeClock) -> str:
        """Store a record of each kind. Returns the id of a file."""
        first = self.task()
        await engine.enqueue([first, *(self.task(after=first.id, chained=True) for _ in range(3))])
        await engine.enqueue([self.task("thank", wait=HOUR), self.task(run_at=START + DAY, held=True, priority=5)])
        more: dict[str, Any] = {"queue": "mail", "origin": "GET /", "context": "{}", "rerun_after_crash": False}
        await engine.enqueue([self.task(overrides="{}", retention=timedelta.max, expires=DAY, limit_key="a", **more)])
        secret = self.task("thank", arguments='{"password":"x"}', secrets=("password", "return"))
        await engine.enqueue([secret, self.task(unique_key="u"), self.task(idempotency_key="i", limit_key="*")])
        clock.advance(SOON)
        for outcome in (SUCCESS, FAILURE, RETRY, SNOOZE, Cancelled("no"), SetAside("other code")):
            await self.ended(engine, outcome, retention=DAY)
        running = await self.running(engine)
        await engine.heartbeat([Heartbeat(running.lease, ALL)], lease=LEASE)
        await engine.cancel([(await self.running(engine)).id], "please")
        failed = self.task()
        await engine.enqueue([failed, self.task(after=failed.id)])
        [taken] = await self.claim(engine, ids=[failed.id])
        line = LogLine(attempt=1, at=START, level="INFO", logger="shop", message="a line")
        await engine.finish([replace(self.settled(taken, FAILURE), logs=(line, line))])
        lost = await self.running(engine)
        clock.advance(LEASE * 2)
        await self.lose(engine, [lost])
        file = self.task().id
        await engine.write_chunks(
            [Chunk(file=file, task=running.id, number=n, content=bytes([n]) * 9) for n in range(40)]
        )
        await engine.register_schedules(HOURLY)
        await engine.fire([Fire("greet", START + HOUR, self.task())])
        await engine.pause(Paused(queues=frozenset({"mail"}), names=frozenset({"x"}), schedules=frozenset({"thank"})))
        return file

    @pytest.mark.parametrize("limit", [1, 3, EVERYTHING])
    async def test_everything_arrives_as_it_was(
        self, engine: Engine, other: Engine, clock: FakeClock, limit: int
    ) -> None:
        file = await self.everything(engine, clock)
        before = await self.contents(engine, file)
        await self.move(engine, other, limit=limit)
        assert await self.contents(other, file) == before
        assert await self.contents(engine, file) == Contents([], Paused(), [], [[]])
        clock.advance(SOON)
        await self.move(other, engine, limit=limit)
        assert await self.contents(engine, file) == before
        assert await self.contents(other, file) == Contents([], Paused(), [], [[]])

    async def test_an_empty_store_has_no_batch(self, engine: Engine) -> None:
        assert await engine.hand_over("there", limit=10) is None
        await engine.take_over(Batch(id=self.task().id, to="here"))
        assert await self.contents(engine) == Contents([], Paused(), [], [])

    async def test_a_batch_is_returned_until_it_is_done(self, engine: Engine, clock: FakeClock) -> None:
        await self.everything(engine, clock)
        seen = 0
        batch = await engine.hand_over("there", limit=2)
        while batch:
            assert await engine.hand_over("elsewhere", limit=9) == batch
            assert await engine.hand_over("there", limit=2, done=replace(batch, id=self.task().id)) == batch
            seen += 1
            batch = await engine.hand_over("there", limit=2, done=batch)
        assert seen > 10

    async def test_the_records_of_a_batch_are_in_its_source_no_more(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine, unique_key="u")
        batch = await engine.hand_over("there", limit=10)
        assert batch and [one.task for one in batch.tasks] == [task]
        assert await engine.get([task.id]) == await engine.find(Query()) == await engine.cancel([task.id], "no") == []
        assert await self.finish(engine, task, SUCCESS) == [task.lease]
        assert await engine.heartbeat([Heartbeat(task.lease)], lease=LEASE) == []
        clock.advance(LEASE * 2)
        assert await engine.expired(10) == []
        assert (await engine.stats()).counts == {}

    async def test_a_batch_has_no_more_tasks_than_asked_for(self, engine: Engine, other: Engine) -> None:
        tasks = [self.task() for _ in range(7)]
        await engine.enqueue(tasks)
        batches = await self.move(engine, other, limit=3)
        assert [[one.task.id for one in batch.tasks] for batch in batches] == [
            ids(tasks[4:])[::-1],
            ids(tasks[1:4])[::-1],
            ids(tasks[:1]),
        ]
        assert {batch.to for batch in batches} == {"there"}

    async def test_a_batch_of_large_tasks_has_fewer(self, engine: Engine, other: Engine) -> None:
        tasks = [self.task(arguments=f'{{"text": "{"x" * 1024 * 1024}"}}') for _ in range(6)]
        await engine.enqueue(tasks)
        batches = await self.move(engine, other, limit=10)
        assert sum(len(batch.tasks) for batch in batches) == 6
        assert len(batches) > 1
        assert ids(await other.find(Query()))[::-1] == ids(tasks)

    async def test_what_was_stored_meanwhile_is_moved_too(self, engine: Engine, other: Engine) -> None:
        await engine.enqueue([self.task(), self.task()])
        batch = await engine.hand_over("there", limit=1)
        await engine.enqueue([self.task()])
        assert batch
        await self.move(engine, other, limit=1)
        assert await engine.find(Query()) == []
        assert len(await other.find(Query())) == 3

    async def test_a_batch_is_taken_over_once_even_after_its_task_is_gone(self, engine: Engine, other: Engine) -> None:
        await other.enqueue([new := self.task(retention=timedelta())])
        batch = await other.hand_over("here", limit=10)
        assert batch
        await engine.take_over(batch)
        [task] = await self.claim(engine)
        await engine.take_over(batch)
        assert await self.one(engine, new) == task
        await self.succeed(engine, task)
        assert await engine.prune(10) == 1
        assert (await engine.take_over(batch)).stored == ()
        assert await engine.get([new.id]) == []

    async def test_a_lease_goes_on_in_the_destination(self, engine: Engine, other: Engine, clock: FakeClock) -> None:
        held, expiring = await self.running(other), await self.running(other)
        await self.move(other, engine)
        assert await self.finish(other, held, SUCCESS) == [held.lease]
        assert [one.lease for one in await engine.heartbeat([Heartbeat(held.lease)], lease=LEASE * 3)] == [held.lease]
        assert await engine.expired(10) == []
        clock.advance(LEASE * 2)
        assert ids(await engine.expired(10)) == [expiring.id]
        await self.lose(engine, await engine.expired(10))
        assert await self.finish(engine, expiring, SUCCESS) == [expiring.lease]
        await self.succeed(engine, held)

    async def test_moved_tasks_come_before_those_stored_in_the_destination(self, engine: Engine, other: Engine) -> None:
        older, newer = [self.task() for _ in range(5)], [self.task() for _ in range(2)]
        await other.enqueue(older)
        await engine.enqueue(newer[:1])
        await self.move(other, engine)
        await engine.enqueue(newer[1:])
        assert ids(await engine.find(Query()))[::-1] == ids(older + newer)
        assert ids(await self.claim(engine)) == ids(older + newer)

    async def test_a_task_whose_id_is_stored_already_stays_as_it_is(self, engine: Engine, other: Engine) -> None:
        both, alone = self.task(arguments='{"from": "there"}'), self.task()
        await other.enqueue([both, alone])
        await engine.enqueue([replace(both, arguments='{"from": "here"}')])
        await self.move(other, engine)
        assert (await self.one(engine, both)).arguments == '{"from": "here"}'
        assert ids(await engine.find(Query()))[::-1] == ids([alone, both])
        await other.enqueue([both])
        batch_of_one = await other.hand_over("here", limit=1)
        assert batch_of_one
        assert (await engine.take_over(batch_of_one)).known == [both.id]

    async def test_keys_are_moved_with_their_tasks(self, engine: Engine, other: Engine) -> None:
        unique, idempotent = self.task(unique_key="u"), self.task(idempotency_key="i")
        await other.enqueue([unique, idempotent])
        [twin] = await other.enqueue([alias := self.task(unique_key="u")])
        assert twin.id == unique.id
        await self.move(other, engine, limit=1)
        again = await engine.enqueue([self.task(unique_key="u"), self.task(idempotency_key="i")])
        assert ids(again) == ids([unique, idempotent])
        assert ids(await engine.get([alias.id])) == [unique.id]
        assert ids(await engine.cancel([alias.id], "no")) == [unique.id]

    async def test_a_key_that_a_task_has_here_is_left_out_of_the_moved_one(self, engine: Engine, other: Engine) -> None:
        here = [self.task(unique_key="u"), self.task(idempotency_key="i")]
        there = [self.task(unique_key="u"), self.task(idempotency_key="i"), self.task(unique_key="u")]
        await other.enqueue(there[:1])
        await self.succeed(other, *await self.claim(other))
        await other.enqueue(there[1:])
        await engine.enqueue(here)
        batch = await other.hand_over("here", limit=10)
        assert batch
        arrived = await engine.take_over(batch)
        assert {*arrived.without_keys} == {*ids(there[1:])}
        keys = [(task.unique_key, task.idempotency_key) for task in await engine.get(ids(there))]
        assert keys == [("u", None), (None, None), (None, None)]  # a finished task keeps its unique key
        assert ids(await engine.enqueue([self.task(unique_key="u")])) == [here[0].id]
        assert len(await self.claim(engine)) == 4

    async def test_a_task_arrives_after_those_behind_it(self, engine: Engine, other: Engine) -> None:
        first = self.task(retention=timedelta())
        second = self.task(after=first.id, retention=timedelta())
        await engine.enqueue([first, second, third := self.task(after=second.id)])
        done = None
        for _ in range(3):  # with a worker that takes what it can, and a prune, between any two of them
            done = await engine.hand_over("there", limit=1, done=done)
            assert done
            await other.take_over(done)
            await self.succeed(other, *await self.claim(other))
            await other.prune(10)
        await self.succeed(other, *await self.claim(other))
        await self.succeed(other, *await self.claim(other))
        assert (await self.one(other, third)).state is State.SUCCEEDED

    @pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, State.QUEUED), (FAILURE, State.CANCELLED)])
    async def test_a_task_that_waits_for_one_that_ended_here_follows_it(
        self, engine: Engine, other: Engine, outcome: Any, state: State
    ) -> None:
        first = self.task()
        await other.enqueue([first, second := self.task(after=first.id), third := self.task(after=second.id)])
        await engine.enqueue([first])
        [taken] = await self.claim(engine)
        await self.finish(engine, taken, outcome)
        await self.move(other, engine, limit=1)
        after = [state, State.WAITING if state is State.QUEUED else state]
        assert await self.states(engine, second, third) == after

    @pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, State.QUEUED), (FAILURE, State.CANCELLED)])
    async def test_a_task_that_waits_here_follows_one_that_arrives_finished(
        self, engine: Engine, other: Engine, outcome: Any, state: State
    ) -> None:
        first = self.task()
        await other.enqueue([first, second := self.task(after=first.id)])
        waiting = await other.hand_over("here", limit=1)
        assert waiting
        await engine.take_over(waiting)
        [taken] = await self.claim(other)
        await self.finish(other, taken, outcome)
        ended = await other.hand_over("here", limit=1, done=waiting)
        assert ended
        await engine.take_over(ended)
        assert await self.states(engine, second) == [state]

    async def test_the_instants_that_records_do_not_show_are_moved(
        self, engine: Engine, other: Engine, clock: FakeClock
    ) -> None:
        clock.advance(DAY)
        delayed, at = self.task("thank", wait=HOUR), self.task("thank", run_at=START + DAY * 3)
        await other.enqueue([self.task(), delayed, at])
        clock.advance(SOON)
        await self.move(other, engine)
        clock.advance(SOON)
        [waiting] = await engine.unroutable(SOON * 2)
        assert (waiting.count, waiting.since) == (1, START + DAY)
        assert await engine.unroutable(SOON * 2 + timedelta(seconds=1)) == []
        clock.advance(-DAY - SOON * 2)
        assert await engine.put_right(LEASE)
        runs_at = [task.run_at for task in await engine.get(ids([delayed, at]))]
        assert runs_at == [START + HOUR, START + DAY * 3]

    async def test_starts_go_on_counting_for_rates(self, engine: Engine, other: Engine, clock: FakeClock) -> None:
        await other.enqueue([self.task(limit_key="*"), waiting := self.task(limit_key="*")])
        [started] = await self.claim(other, limits=ONCE_A_DAY)
        await self.succeed(other, started)
        await self.move(other, engine)
        clock.advance(HOUR)
        assert await self.claim(engine, limits=ONCE_A_DAY) == []
        clock.advance(DAY)
        assert ids(await self.claim(engine, limits=ONCE_A_DAY)) == [waiting.id]

    async def test_pauses_and_schedules_come_before_any_task(self, engine: Engine, other: Engine) -> None:
        await engine.enqueue([self.task()])
        await engine.register_schedules(HOURLY)
        await engine.pause(Paused(names=frozenset({"greet"}), schedules=frozenset({"thank"})))
        first = await engine.hand_over("there", limit=1)
        assert first and not first.tasks
        await other.take_over(first)
        assert await other.paused() == Paused(names=frozenset({"greet"}), schedules=frozenset({"thank"}))

    async def test_a_fire_is_handled_in_one_of_both(self, engine: Engine, other: Engine, clock: FakeClock) -> None:
        await other.register_schedules(HOURLY)
        await other.fire([Fire("greet", START + HOUR, self.task())])
        clock.advance(HOUR * 2)
        await engine.register_schedules(HOURLY)  # by a worker that started too early
        await self.move(other, engine)
        assert await engine.fire([Fire("greet", START + HOUR, self.task())]) == []
        missed = self.task()
        assert ids(await engine.fire([Fire("greet", START + HOUR * 2, missed)])) == [missed.id]

    async def test_a_schedule_that_fired_in_both_fires_after_the_later_one(
        self, engine: Engine, other: Engine, clock: FakeClock
    ) -> None:
        for store, hours in ((other, 1), (engine, 2)):
            await store.register_schedules(HOURLY)
            await store.fire([Fire("greet", START + HOUR * hours, self.task())])
            await store.fire([Fire("thank", START + HOUR * (3 - hours), self.task())])
        await self.move(other, engine)
        kept = {one.name: (one.after, one.last_fire) for one in await engine.register_schedules({})}
        assert kept == {name: (START + HOUR * 2, START + HOUR * 2) for name in HOURLY}

    async def test_the_files_of_stored_tasks_stay_however_long_a_move_takes(
        self, engine: Engine, other: Engine, clock: FakeClock
    ) -> None:
        owner, file, forgotten = self.task(retention=timedelta()), self.task().id, self.task().id
        await engine.write_chunks([Chunk(file=file, task=owner.id, number=n, content=b"x") for n in range(3)])
        await engine.enqueue([owner])
        clock.advance(HOUR)
        await engine.write_chunks([Chunk(file=forgotten, task=self.task().id, number=0, content=b"y")])
        files = await engine.hand_over("there", limit=1)
        assert files and files.chunks and not files.tasks
        await other.take_over(files)
        clock.advance(DAY - timedelta(seconds=1))
        await other.prune(10)
        assert (await self.contents(other, forgotten)).files == [[b"y"]]
        clock.advance(timedelta(seconds=1))
        await other.prune(10)
        assert (await self.contents(other, file, forgotten)).files == [[b"x"] * 3, []]
        await self.move(engine, other)
        await self.move(other, engine)
        assert (await self.contents(engine, file)).files == [[b"x"] * 3]
        await self.succeed(engine, *await self.claim(engine))
        await engine.prune(10)
        assert (await self.contents(engine, file)).files == [[]]

    async def test_a_task_that_was_set_aside_waits_for_other_code_there_too(
        self, engine: Engine, other: Engine
    ) -> None:
        task = await self.ended(other, SetAside("its arguments do not fit"))
        await self.move(other, engine)
        assert await self.claim(engine) == []
        assert ids(await engine.find(Query(set_aside=True))) == [task.id]
        assert ids(await self.claim(engine, ids=[task.id])) == [task.id]

    async def test_moved_tasks_can_be_requeued_with_those_behind_them(self, engine: Engine, other: Engine) -> None:
        first = self.task()
        await other.enqueue([first, *(behind := [self.task(after=first.id) for _ in range(300)])])
        [taken] = await self.claim(other)
        await self.finish(other, taken, FAILURE)
        await self.move(other, engine, limit=200)
        assert ids(await engine.requeue([first.id])) == [first.id]
        assert await self.states(engine, *behind) == [State.WAITING] * 300
