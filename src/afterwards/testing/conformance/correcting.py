"""A clock that was a day ahead, and was set back."""

from datetime import timedelta

from afterwards.core.moving import Batch, MovedChunk
from afterwards.core.options import LONGEST_LEASE
from afterwards.core.routing import LiveWorker
from afterwards.core.schedule import Every
from afterwards.core.serialization.files import UNCLAIMED
from afterwards.core.settling import SUCCEEDED
from afterwards.core.tallies import STEP, Ends, Tally, step_of
from afterwards.engine import Chunk, Engine, Fire
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import FAILURE, LEASE, MICROSECOND, RETRY, SOON, Conformance, ids

AHEAD, YEAR = timedelta(days=1), timedelta(days=365)
HOURS = timedelta(hours=2)


class Correcting(Conformance):
    """Times written while the clock was ahead go on from the new time."""

    async def test_a_delay_begins_anew_after_a_correction(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(AHEAD)
        delayed = self.task(wait=SOON)
        await engine.enqueue([delayed])
        clock.advance(-AHEAD)
        assert await engine.put_right(LEASE)
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == [delayed.id]
        assert not await engine.put_right(LEASE)

    async def test_a_task_behind_another_begins_at_its_end_after_a_correction(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        clock.advance(AHEAD)
        before = self.task()
        behind, delayed = self.task(after=before.id), self.task(after=before.id, wait=SOON)
        for task in (before, behind, delayed):
            await engine.enqueue([task])
        clock.advance(-AHEAD)
        assert await engine.put_right(LEASE)
        assert not await engine.put_right(LEASE)
        [running] = await self.claim(engine)
        await self.finish(engine, running, SUCCEEDED)
        assert ids(await self.claim(engine)) == [behind.id]
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == [delayed.id]

    async def test_a_task_behind_another_keeps_an_instant_of_the_callers_own(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        clock.advance(AHEAD)
        before = self.task()
        await engine.enqueue([before])
        behind = self.task(after=before.id, run_at=START + AHEAD * 3)
        await engine.enqueue([behind])
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        assert (await self.one(engine, behind)).run_at == START + AHEAD * 3

    async def test_a_smaller_step_back_is_waited_out(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(HOURS)
        await engine.enqueue([self.task(wait=SOON)])
        clock.advance(-HOURS)
        assert not await engine.put_right(LEASE)
        clock.advance(SOON)
        assert await self.claim(engine) == []

    async def test_an_instant_of_the_callers_own_stays(self, engine: Engine, clock: FakeClock) -> None:
        later = self.task(run_at=START + AHEAD * 3)
        clock.advance(AHEAD)
        await engine.enqueue([later])
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        assert (await self.one(engine, later)).run_at == START + AHEAD * 3

    async def test_an_instant_of_the_callers_own_stays_when_its_request_has_ended(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        later, at = self.task(run_at=START + AHEAD * 3, held=True), START + AHEAD * 3
        clock.advance(AHEAD)
        [held] = await engine.enqueue([later])
        await engine.publish([(held.lease, at)])
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        assert (await self.one(engine, later)).run_at == at

    async def test_a_retry_begins_its_wait_anew(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(AHEAD)
        await self.finish(engine, task, RETRY)
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_lease_of_a_time_that_never_was_runs_out(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(AHEAD)
        task = await self.running(engine)
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        clock.advance(LEASE)
        assert ids(await engine.expired(limit=10)) == [task.id]

    async def test_the_longest_lease_of_another_worker_is_kept(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task()])
        [task] = await self.claim(engine, "another", lease=LONGEST_LEASE)
        assert not await engine.put_right(timedelta(seconds=1))
        assert (await self.one(engine, task)).lease_until == START + LONGEST_LEASE

    async def test_a_task_expires_as_asked_after_a_correction(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(AHEAD)
        await engine.enqueue([self.task(expires=SOON)])
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        clock.advance(SOON)
        assert await self.claim(engine) == []

    async def test_a_task_queued_while_the_clock_was_ahead_waits_from_now(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        clock.advance(AHEAD * 10)
        queued = self.task()
        await engine.enqueue([queued])
        clock.advance(-AHEAD * 10)
        assert await engine.put_right(LEASE)
        assert (await engine.stats()).oldest == timedelta()
        assert (await self.one(engine, queued)).created_at == START
        clock.advance(SOON)
        [lonely] = await engine.unroutable(SOON)
        assert (lonely.count, lonely.since) == (1, START)
        assert not await engine.put_right(LEASE)

    async def test_a_task_queued_again_while_the_clock_was_ahead_waits_from_now(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        task = await self.ended(engine)
        clock.advance(AHEAD)
        await engine.requeue([task.id])
        clock.advance(-AHEAD)
        assert await engine.put_right(LEASE)
        clock.advance(SOON)
        assert (await engine.stats()).oldest == SOON
        assert not await engine.put_right(LEASE)

    async def test_very_many_queued_tasks_are_corrected(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(3)])
        clock.advance(AHEAD)
        await engine.enqueue([self.task() for _ in range(2500)])
        clock.advance(-AHEAD)
        assert await engine.put_right(LEASE)
        clock.advance(SOON)
        [lonely] = await engine.unroutable(SOON)
        assert lonely.count == 2503
        assert not await engine.put_right(LEASE)

    async def test_what_ended_while_the_clock_was_ahead_counts_as_ended_now(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        await self.ended(engine, FAILURE)
        clock.advance(AHEAD)
        await self.ended(engine)
        clock.advance(HOURS)
        await self.ended(engine)
        clock.advance(-AHEAD - HOURS)
        assert await engine.put_right(LEASE)
        assert await engine.tallies(HOURS, STEP) == [Tally(step_of(START), Ends(2, 1, 0))]
        assert not await engine.put_right(LEASE)

    async def test_a_schedule_fires_again_after_a_correction(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules({"greet": str(Every(SOON))})
        await engine.fire([Fire("greet", START + AHEAD, self.task())])
        assert await engine.put_right(LEASE)
        [kept] = await engine.register_schedules({})
        assert kept.after == START
        assert len(await engine.fire([Fire("greet", START + SOON, self.task())])) == 1

    async def test_a_dead_worker_does_not_live_until_the_clock_catches_up(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        clock.advance(AHEAD)
        names = frozenset({"greet"})
        await engine.announce([LiveWorker(id="w", host="h", pid="1", started_at=clock(), names=names, slots=1)])
        clock.advance(-AHEAD)
        await engine.put_right(LEASE)
        clock.advance(SOON * 2)
        assert await engine.workers(SOON) == []

    async def test_a_record_that_ended_while_the_clock_was_ahead_is_kept_from_now_on(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        clock.advance(YEAR)
        ended = await self.ended(engine, retention=SOON, idempotency_key="a")
        clock.advance(-YEAR)
        assert await engine.put_right(LEASE)
        assert not await engine.put_right(LEASE)
        right = await self.one(engine, ended)
        assert (right.created_at, right.started_at, right.finished_at) == (START, START, START)
        clock.advance(SOON - MICROSECOND)
        assert await engine.prune(limit=10) == 0
        clock.advance(MICROSECOND)
        assert await engine.prune(limit=10) == 1
        again = self.task(idempotency_key="a")
        assert ids(await engine.enqueue([again])) == [again.id]

    async def test_a_record_is_corrected_beside_those_that_are_kept_for_longer(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        before = await self.ended(engine, retention=YEAR * 2)
        clock.advance(AHEAD)
        ended = [await self.ended(engine, retention=retention) for retention in (SOON, YEAR)]
        clock.advance(-AHEAD + SOON)
        assert await engine.put_right(LEASE)
        assert [(await self.one(engine, task)).finished_at for task in ended] == [clock(), clock()]
        assert await self.one(engine, before) == before
        assert not await engine.put_right(LEASE)

    async def test_a_task_that_was_cancelled_while_the_clock_was_ahead_counts_as_cancelled_now(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        new = self.task()
        await engine.enqueue([new])
        clock.advance(AHEAD)
        await engine.cancel([new.id], "not wanted")
        clock.advance(-AHEAD)
        assert await engine.put_right(LEASE)
        assert (await self.one(engine, new)).finished_at == START
        assert not await engine.put_right(LEASE)

    async def test_very_many_records_are_corrected(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(AHEAD)
        many = [self.task(retention=SOON) for _ in range(1200)]
        await engine.enqueue(many)
        await engine.cancel(ids(many), "not wanted")
        clock.advance(-AHEAD)
        assert await engine.put_right(LEASE)
        assert not await engine.put_right(LEASE)
        clock.advance(SOON)
        assert await engine.prune(limit=3000) == 1200

    async def test_a_record_that_ended_before_a_smaller_step_back_stays(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(HOURS)
        ended = await self.ended(engine)
        clock.advance(-HOURS)
        assert not await engine.put_right(LEASE)
        assert await self.one(engine, ended) == ended

    async def test_a_requeue_after_a_correction_is_claimable_from_now(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(YEAR)
        ended = await self.ended(engine)
        clock.advance(-YEAR)
        assert await engine.put_right(LEASE)
        await engine.requeue([ended.id])
        assert ids(await self.claim(engine)) == [ended.id]

    async def test_files_that_nobody_claimed_are_deleted_a_day_after_a_correction(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        clock.advance(YEAR)
        files = [self.task().id for _ in range(1200)]
        await engine.write_chunks([Chunk(file=file, task=self.task().id, number=0, content=b"a") for file in files])
        clock.advance(-YEAR)
        assert await engine.put_right(LEASE)
        assert not await engine.put_right(LEASE)
        clock.advance(UNCLAIMED - MICROSECOND)
        await engine.prune(limit=10)
        assert await engine.read_chunks(files[-1], start=0, limit=1) == [b"a"]
        clock.advance(MICROSECOND)
        await engine.prune(limit=10)
        assert [await engine.read_chunks(file, start=0, limit=1) for file in files] == [[]] * 1200

    async def test_a_file_of_a_stored_task_stays_after_a_correction(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(YEAR)
        new = self.task()
        await engine.write_chunks([Chunk(file=new.id, task=new.id, number=0, content=b"a")])
        await engine.enqueue([new])
        clock.advance(-YEAR)
        assert await engine.put_right(LEASE)
        clock.advance(UNCLAIMED)
        await engine.prune(limit=10)
        assert await engine.read_chunks(new.id, start=0, limit=1) == [b"a"]

    async def test_a_moved_file_of_a_task_that_was_stored_is_not_corrected(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        file, task = self.task().id, self.task().id
        chunk = MovedChunk(file=file, task=task, number=0, content=b"a", until=None)
        await engine.take_over(Batch(id=self.task().id, to="here", chunks=(chunk,)))
        assert not await engine.put_right(LEASE)
        clock.advance(UNCLAIMED)
        await engine.prune(limit=10)
        assert await engine.read_chunks(file, start=0, limit=1) == [b"a"]
