"""A clock that was a day ahead, and was set back."""

from datetime import timedelta

from afterwards.core.routing import LiveWorker
from afterwards.core.schedule import Every
from afterwards.core.settling import SUCCEEDED
from afterwards.engine import Engine, Fire
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import LEASE, RETRY, SOON, Conformance, ids

AHEAD = timedelta(days=1)
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
