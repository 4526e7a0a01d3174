"""Schedules: one task per fire time, however many processes try, and however often."""

import asyncio
from datetime import datetime, timedelta

from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import State, Task
from afterwards.engine import Engine, Fire, Paused
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import MICROSECOND, SOON, Conformance, ids

HOUR = timedelta(hours=1)
NIGHTLY = {"greet": "0 3 * * * UTC"}


class Scheduling(Conformance):
    """Register, fire, pause, resume."""

    async def test_a_new_schedule_begins_now(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        assert await self.kept(engine) == StoredSchedule(name="greet", expression=NIGHTLY["greet"], after=clock())

    async def test_registering_again_changes_nothing(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        before = await self.kept(engine)
        clock.advance(SOON)
        await engine.register_schedules(NIGHTLY)
        assert await self.kept(engine) == before

    async def test_one_that_is_new_leaves_those_beside_it_as_they_are(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        before = await self.kept(engine)
        clock.advance(SOON)
        await engine.register_schedules(NIGHTLY | {"thank": "every 0:01:00"})
        assert await self.kept(engine) == before

    async def test_a_changed_expression_begins_anew_and_stays_paused(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        await self.fire(engine, START + SOON)
        await self.pause(engine, "greet")
        clock.advance(HOUR)
        await engine.register_schedules({"greet": "every 0:01:00"})
        assert await self.kept(engine) == StoredSchedule(
            name="greet", expression="every 0:01:00", after=clock(), last_fire=START + SOON, paused=True
        )

    async def test_all_that_are_kept_are_listed_by_name(self, engine: Engine) -> None:
        assert await engine.register_schedules({}) == []
        kept = await engine.register_schedules({"thank": "a", "greet": "b"})
        assert [(one.name, one.expression) for one in kept] == [("greet", "b"), ("thank", "a")]
        assert [one.name for one in await engine.register_schedules({"other": "c"})] == ["greet", "other", "thank"]
        assert kept == [one for one in await engine.register_schedules({}) if one.name != "other"]

    async def test_what_is_paused_can_be_asked_for(self, engine: Engine) -> None:
        await engine.register_schedules({"greet": "a", "thank": "b"})
        await self.pause(engine, "greet", "thank")
        await self.resume(engine, "thank")
        assert await engine.paused() == Paused(schedules=frozenset({"greet"}))
        [task] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert task.state is State.RUNNING  # tasks that it has stored, and all others, go on

    async def test_a_fire_stores_its_task_and_is_noted(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        [task] = await self.fire(engine, START + SOON, origin="schedule 0 3 * * * UTC")
        assert (task.state, task.origin) == (State.QUEUED, "schedule 0 3 * * * UTC")
        kept = await self.kept(engine)
        assert (kept.after, kept.last_fire) == (START + SOON, START + SOON)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_fire_time_has_one_task_however_often_it_is_fired(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        assert len(await self.fire(engine, START + SOON)) == 1
        assert await self.fire(engine, START + SOON) == []
        assert len(await self.fire(engine, START + SOON + MICROSECOND)) == 1

    async def test_a_fire_twice_in_one_call_is_one_fire(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        assert len(await self.fire(engine, START + SOON, START + SOON)) == 1

    async def test_whoever_fires_at_the_same_moment_only_one_does(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        fired = await asyncio.gather(*(self.fire(engine, START + SOON) for _ in range(10)))
        assert sum(map(len, fired)) == 1

    async def test_several_fires_are_stored_in_their_order(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        fired = await self.fire(engine, *(START + SOON * n for n in (1, 2, 3)))
        assert len(fired) == 3
        assert ids(await self.claim(engine)) == ids(fired)
        assert (await self.kept(engine)).last_fire == START + SOON * 3

    async def test_a_fire_that_is_not_later_than_the_last_is_refused(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        assert await self.fire(engine, START) == []  # the schedule was registered at that time
        await self.fire(engine, START + SOON * 2)
        assert await self.fire(engine, START + SOON) == []
        assert (await self.kept(engine)).last_fire == START + SOON * 2

    async def test_a_refused_fire_does_not_hinder_those_beside_it(self, engine: Engine) -> None:
        await engine.register_schedules({"greet": "a", "thank": "b"})
        await self.fire(engine, START + SOON)
        greet, thank = self.task("greet"), self.task("thank")
        fires = [Fire("greet", START + SOON, greet), Fire("thank", START + SOON, thank)]
        assert ids(await engine.fire(fires)) == [thank.id]

    async def test_an_unknown_schedule_is_not_fired(self, engine: Engine) -> None:
        assert await self.fire(engine, START + SOON) == []
        assert await engine.fire([]) == []

    async def test_a_fire_is_not_repeated_after_its_task_was_pruned(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        await self.fire(engine, START + SOON, retention=timedelta())
        [task] = await self.claim(engine)
        await self.succeed(engine, task)
        clock.advance(SOON)
        assert await engine.prune(limit=10) == 1
        assert await self.fire(engine, START + SOON) == []

    async def test_each_fire_has_its_own_task_although_the_one_before_still_runs(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        await self.fire(engine, START + SOON)
        [running] = await self.claim(engine)
        [next] = await self.fire(engine, START + SOON * 2)
        assert ids(await self.claim(engine)) == [next.id]
        assert await self.states(engine, running, next) == [State.RUNNING, State.RUNNING]

    async def test_a_fire_whose_task_another_one_answers_for_returns_that_one(self, engine: Engine) -> None:
        await engine.register_schedules({"greet": "a"})
        [there] = await engine.enqueue([self.task(unique_key="one")])
        assert await self.fire(engine, START + SOON, unique_key="one") == [there]
        assert (await self.kept(engine)).last_fire == START + SOON

    async def test_a_task_that_has_to_wait_does_so_after_its_fire(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        [task] = await self.fire(engine, START + SOON, wait=SOON)
        assert (task.state, task.run_at) == (State.SCHEDULED, clock() + SOON)

    async def test_a_paused_schedule_does_not_fire(self, engine: Engine) -> None:
        await engine.register_schedules({"greet": "a", "thank": "b"})
        await self.pause(engine, "greet", "unknown")
        assert await self.fire(engine, START + SOON) == []
        assert len(await self.fire(engine, START + SOON, name="thank")) == 1
        assert (await self.kept(engine)).last_fire is None

    async def test_a_paused_schedule_does_not_fire_beside_one_that_does(self, engine: Engine) -> None:
        await engine.register_schedules({"greet": "a", "thank": "b"})
        await self.pause(engine, "greet")
        greet, thank = self.task("greet"), self.task("thank")
        fires = [Fire("greet", START + SOON, greet), Fire("thank", START + SOON, thank)]
        assert ids(await engine.fire(fires)) == [thank.id]

    async def test_a_resumed_schedule_makes_up_for_nothing(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        await self.pause(engine, "greet")
        clock.advance(HOUR)
        await self.resume(engine, "greet", "unknown")
        assert await self.fire(engine, START + SOON, clock()) == []
        assert len(await self.fire(engine, clock() + MICROSECOND)) == 1

    async def test_resuming_what_is_not_paused_passes_over_nothing(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        clock.advance(HOUR)
        await self.resume(engine, "greet")
        assert len(await self.fire(engine, START + SOON)) == 1

    async def test_a_clock_that_was_put_back_doubles_nothing(self, engine: Engine, clock: FakeClock) -> None:
        await engine.register_schedules(NIGHTLY)
        await self.fire(engine, START + SOON)
        clock.advance(-HOUR)
        await engine.register_schedules(NIGHTLY)
        await self.pause(engine, "greet")
        await self.resume(engine, "greet")
        assert await self.fire(engine, START + SOON) == []

    async def test_pausing_and_resuming_nothing_is_fine(self, engine: Engine) -> None:
        await engine.register_schedules({})
        await self.pause(engine)
        await self.resume(engine)

    async def test_a_waiting_worker_is_told_of_a_fire(self, engine: Engine) -> None:
        await engine.register_schedules(NIGHTLY)
        await self.claim(engine)
        waiting = asyncio.ensure_future(engine.wait(HOUR))
        await self.fire(engine, START + SOON)
        await asyncio.wait_for(waiting, timeout=10)

    async def fire(self, engine: Engine, *at: datetime, name: str = "greet", **fields: object) -> list[Task]:
        return await engine.fire([Fire(name, one, self.task(name, **fields)) for one in at])

    async def pause(self, engine: Engine, *names: str) -> None:
        await engine.pause(Paused(schedules=frozenset(names)))

    async def resume(self, engine: Engine, *names: str) -> None:
        await engine.resume(Paused(schedules=frozenset(names)))

    async def kept(self, engine: Engine) -> StoredSchedule:
        [stored] = [one for one in await engine.register_schedules({}) if one.name == "greet"]
        return stored
