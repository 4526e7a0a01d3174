"""Moving everything from one engine to another: nothing is lost, nothing is doubled, nothing is changed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from afterwards.core.tallies import STEP, Ends
from afterwards.engine import Batch, Chunk, Engine, Fire, Heartbeat, Paused, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.moving_support import (
    DAY,
    EVERYTHING,
    HOUR,
    HOURLY,
    ONCE_A_DAY,
    Contents,
    MovingConformance,
)
from afterwards.testing.conformance.support import (
    FAILURE,
    LEASE,
    SOON,
    SUCCESS,
    ids,
)


class Moving(MovingConformance):
    """Each batch is in the source until it is in the destination, and is taken over once."""

    @pytest.mark.parametrize("limit", [1, 3, EVERYTHING])
    async def test_everything_arrives_as_it_was(
        self, engine: Engine, other: Engine, clock: FakeClock, limit: int
    ) -> None:
        file = await self.everything(engine, clock)
        before = await self.contents(engine, file)
        assert len(before.tallies) > 1
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

    @pytest.mark.parametrize("limit", [1, EVERYTHING])
    async def test_every_batch_can_be_put_back_and_moved_again(
        self, engine: Engine, other: Engine, clock: FakeClock, limit: int
    ) -> None:
        file = await self.everything(engine, clock)
        before = await self.contents(engine, file)
        done, ways = None, 0
        while packed := await engine.hand_over("gone", limit=limit, done=done):
            put = await engine.put_back()
            assert put and put.batch.id == packed.id and not put.arrived.known
            assert await engine.put_back() is None
            again = await engine.hand_over("there", limit=limit)
            assert again and again.id != packed.id
            await other.take_over(again)
            done, ways = again, ways + 1
        assert ways > 3
        after = await self.contents(other, file)
        assert sorted(ids(after.tasks)) == sorted(ids(before.tasks))
        assert (after.files, after.paused, after.tallies) == (before.files, before.paused, before.tallies)

    async def test_a_task_that_was_put_back_is_claimed_and_followed(self, engine: Engine) -> None:
        first = self.task()
        await engine.enqueue([first, second := self.task(after=first.id)])
        packed = await engine.hand_over("gone", limit=1)
        assert packed and await engine.get([second.id]) == []
        [taken] = await self.claim(engine)
        await self.succeed(engine, taken)
        assert await engine.put_back()
        assert ids(await self.claim(engine)) == [second.id]

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

    async def test_starts_go_on_counting_for_rates(self, engine: Engine, other: Engine, clock: FakeClock) -> None:
        await other.enqueue([self.task(limit_key="*"), waiting := self.task(limit_key="*")])
        [started] = await self.claim(other, limits=ONCE_A_DAY)
        await self.succeed(other, started)
        await self.move(other, engine)
        clock.advance(HOUR)
        assert await self.claim(engine, limits=ONCE_A_DAY) == []
        clock.advance(DAY)
        assert ids(await self.claim(engine, limits=ONCE_A_DAY)) == [waiting.id]

    async def test_counts_are_added_once_to_those_of_the_same_minute(
        self, engine: Engine, other: Engine, clock: FakeClock
    ) -> None:
        for store in (engine, other):
            await self.ended(store, FAILURE)
        clock.advance(STEP)
        await self.ended(other, SUCCESS)
        done = None
        while batch := await other.hand_over("here", limit=1, done=done):
            for _ in range(2):
                await engine.take_over(batch)
            done = batch
        assert [tally.ends for tally in await engine.tallies(HOUR, STEP)] == [Ends(0, 2, 0), Ends(1, 0, 0)]
        assert await other.tallies(HOUR, STEP) == []

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
