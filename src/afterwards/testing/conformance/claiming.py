"""Claim, suspects, and heartbeats."""

import asyncio
from dataclasses import replace

from afterwards.core.progress import Progress
from afterwards.core.settling import lose_all
from afterwards.core.task import Lease, State, Task
from afterwards.engine import Engine, Heartbeat, Held
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import (
    ALL,
    HALF,
    LEASE,
    MICROSECOND,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
    ids,
)


class Claiming(Conformance):
    """A task goes to one worker at a time, the best task first."""

    async def test_a_claimed_task_is_running_and_leased(self, engine: Engine, clock: FakeClock) -> None:
        [stored] = await engine.enqueue([self.task()])
        clock.advance(1)
        [task] = await self.claim(engine, "me")
        expected = replace(
            stored,
            state=State.RUNNING,
            attempt=1,
            worker="me",
            lease_until=clock() + LEASE,
            started_at=clock(),
        )
        assert task == expected
        assert await self.one(engine, task) == expected

    async def test_a_claimed_task_is_not_given_to_another_worker(self, engine: Engine) -> None:
        await self.running(engine)
        assert await self.claim(engine, "another") == []

    async def test_workers_at_the_same_time_never_get_the_same_task(self, engine: Engine) -> None:
        await engine.enqueue([self.task() for _ in range(40)])
        claims = [self.claim(engine, f"worker {number}", limit=3) for number in range(20)]
        taken = [id for tasks in await asyncio.gather(*claims) for id in ids(tasks)]
        assert len(taken) == len(set(taken)) == 40

    async def test_every_claim_counts_an_attempt(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        for attempt in (2, 3):
            await self.finish(engine, task, RETRY)
            clock.advance(SOON)
            [task] = await self.claim(engine)
            assert task.attempt == attempt

    async def test_the_oldest_comes_first(self, engine: Engine) -> None:
        tasks = sorted((self.task() for _ in range(6)), key=lambda task: task.id, reverse=True)
        await engine.enqueue(tasks[:3])
        await engine.enqueue(tasks[3:])
        assert ids(await self.claim(engine)) == ids(tasks)

    async def test_higher_priority_comes_first_then_the_older(self, engine: Engine) -> None:
        low, normal, high, urgent, also_urgent = (self.task(priority=number) for number in (-5, 0, 5, 100, 100))
        await engine.enqueue([low, normal, high, urgent, also_urgent])
        assert ids(await self.claim(engine)) == ids([urgent, also_urgent, high, normal, low])

    async def test_a_claim_takes_the_best_up_to_its_limit(self, engine: Engine) -> None:
        low, high, older = self.task(priority=1), self.task(priority=2), self.task(priority=2)
        await engine.enqueue([low, older, high])
        assert ids(await self.claim(engine, limit=2)) == ids([older, high])
        assert ids(await self.claim(engine, limit=2)) == ids([low])

    async def test_a_worker_without_free_slots_gets_nothing(self, engine: Engine) -> None:
        await engine.enqueue([self.task()])
        assert await self.claim(engine, limit=0) == []

    async def test_a_task_that_became_due_keeps_the_place_where_it_was_stored(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        delayed, later = self.task(wait=SOON), self.task()
        await engine.enqueue([delayed, later])
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == ids([delayed, later])

    async def test_tasks_that_this_worker_does_not_know_are_left_alone(self, engine: Engine) -> None:
        unknown, known = self.task("unknown", priority=9), self.task()
        [stored, _] = await engine.enqueue([unknown, known])
        assert ids(await self.claim(engine)) == [known.id]
        assert await self.one(engine, unknown) == stored

    async def test_a_worker_that_knows_nothing_gets_nothing(self, engine: Engine) -> None:
        await engine.enqueue([self.task()])
        assert await self.claim(engine, names=[]) == []

    async def test_a_claim_can_be_for_several_functions(self, engine: Engine) -> None:
        tasks = [self.task("greet"), self.task("thank"), self.task("part")]
        await engine.enqueue(tasks)
        assert ids(await self.claim(engine, names=["greet", "part"])) == ids([tasks[0], tasks[2]])

    async def test_a_claim_can_be_for_some_queues(self, engine: Engine) -> None:
        tasks = [self.task(queue=queue) for queue in ("default", "mail", "reports")]
        await engine.enqueue(tasks)
        assert await self.claim(engine, queues=["images"]) == []
        assert ids(await self.claim(engine, queues=["mail", "reports"])) == ids(tasks[1:])
        assert ids(await self.claim(engine)) == [tasks[0].id]

    async def test_a_claim_can_be_for_certain_tasks(self, engine: Engine) -> None:
        wanted, unwanted = self.task(), self.task(priority=9)
        await engine.enqueue([unwanted, wanted])
        assert ids(await self.claim(engine, ids=[wanted.id, self.task().id])) == [wanted.id]
        assert await self.claim(engine, ids=[wanted.id]) == []
        assert await self.claim(engine, ids=[]) == []

    async def test_a_certain_task_must_be_due_and_served(self, engine: Engine) -> None:
        delayed, unknown, elsewhere = self.task(wait=SOON), self.task("other"), self.task(queue="mail")
        await engine.enqueue([delayed, unknown, elsewhere])
        wanted = ids([delayed, unknown, elsewhere])
        assert await self.claim(engine, queues=["default"], ids=wanted) == []

    async def test_a_claim_starts_without_the_progress_of_the_last_attempt(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        task = await self.running(engine)
        await engine.heartbeat([Heartbeat(task.lease, HALF)], lease=LEASE)
        await self.finish(engine, task, RETRY)
        clock.advance(SOON)
        [task] = await self.claim(engine)
        assert task.progress is None


class Suspecting(Conformance):
    """A task that was running when a worker was lost may have crashed it."""

    async def suspects(self, engine: Engine, clock: FakeClock, count: int) -> list[Task]:
        await engine.enqueue([self.task() for _ in range(count)])
        tasks = await self.claim(engine)
        clock.advance(LEASE)
        await self.lose(engine, tasks)
        return tasks

    async def test_a_worker_gets_one_suspect_at_a_time(self, engine: Engine, clock: FakeClock) -> None:
        first, second, third = await self.suspects(engine, clock, 3)
        assert ids(await self.claim(engine)) == [first.id]
        assert await self.claim(engine, suspects=0) == []
        assert ids(await self.claim(engine, suspects=2)) == ids([second, third])

    async def test_suspects_do_not_keep_others_back(self, engine: Engine, clock: FakeClock) -> None:
        suspects = await self.suspects(engine, clock, 3)
        innocent = [self.task() for _ in range(2)]
        await engine.enqueue(innocent)
        assert ids(await self.claim(engine, suspects=0, limit=1)) == [innocent[0].id]
        assert ids(await self.claim(engine, limit=2)) == ids([suspects[0], innocent[1]])

    async def test_a_suspect_is_marked_and_keeps_the_mark_while_it_runs(self, engine: Engine, clock: FakeClock) -> None:
        await self.suspects(engine, clock, 1)
        [task] = await self.claim(engine)
        assert task.suspect
        assert (await self.one(engine, task)).suspect

    async def test_tasks_lost_together_come_back_together(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(3)])
        lost = await self.claim(engine)
        await self.lose_together(engine, clock, lost)
        again = await self.claim(engine)
        assert ids(again) == ids(lost)
        assert [(task.losses, task.suspect) for task in again] == [(1, False)] * 3

    async def test_tasks_lost_together_twice_run_one_at_a_time(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(3)])
        for _ in range(2):
            lost = await self.claim(engine)
            await self.lose_together(engine, clock, lost)
        [first] = await self.claim(engine)
        assert (first.id, first.losses, first.suspect) == (lost[0].id, 2, True)

    async def test_an_end_of_its_own_forgets_the_losses(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(2)])
        await self.lose_together(engine, clock, await self.claim(engine))
        first, second = await self.claim(engine)
        await self.finish(engine, first, SNOOZE)
        await self.finish(engine, second, SUCCESS)
        assert [task.losses for task in await engine.get([first.id, second.id])] == [0, 0]

    async def lose_together(self, engine: Engine, clock: FakeClock, tasks: list[Task]) -> None:
        clock.advance(LEASE)
        assert await engine.finish(lose_all(tasks, now=clock())) == []


class Beating(Conformance):
    """A worker keeps its leases by heartbeats."""

    async def test_a_beaten_lease_holds(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE / 2)
        assert await engine.heartbeat([Heartbeat(task.lease)], lease=LEASE) == [Held(task.lease)]
        clock.advance(LEASE * 0.75)
        assert await engine.expired(limit=1) == []
        assert await self.one(engine, task) == replace(task, lease_until=START + LEASE * 1.5)

    async def test_a_beat_names_how_long_the_lease_lasts_from_now(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        await engine.heartbeat([Heartbeat(task.lease)], lease=SOON)
        clock.advance(SOON - MICROSECOND)
        assert await engine.expired(limit=1) == []
        clock.advance(MICROSECOND)
        assert ids(await engine.expired(limit=1)) == [task.id]

    async def test_a_late_beat_still_renews_what_nobody_took_away(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE * 2)
        assert await engine.heartbeat([Heartbeat(task.lease)], lease=LEASE) == [Held(task.lease)]
        assert await engine.expired(limit=1) == []

    async def test_progress_comes_with_the_beat_and_stays(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.heartbeat([Heartbeat(task.lease, HALF)], lease=LEASE)
        await engine.heartbeat([Heartbeat(task.lease)], lease=LEASE)
        assert (await self.one(engine, task)).progress == HALF
        await engine.heartbeat([Heartbeat(task.lease, ALL)], lease=LEASE)
        assert (await self.one(engine, task)).progress == ALL

    async def test_each_of_many_beats_carries_its_own_progress(self, engine: Engine) -> None:
        tasks = [await self.running(engine) for _ in range(3)]
        beats = [Heartbeat(task.lease, Progress(done=number)) for number, task in enumerate(tasks)]
        assert await engine.heartbeat(beats, lease=LEASE) == [Held(task.lease) for task in tasks]
        assert [task.progress for task in await engine.get(ids(tasks))] == [Progress(done=n) for n in range(3)]

    async def test_the_lost_are_left_out_and_the_others_renewed(self, engine: Engine) -> None:
        kept, gone = await self.running(engine), await self.ended(engine)
        stale, unknown = Lease(kept.id, kept.attempt - 1), Lease(self.task().id, 1)
        beats = [Heartbeat(lease) for lease in (stale, gone.lease, kept.lease, unknown)]
        assert await engine.heartbeat(beats, lease=LEASE) == [Held(kept.lease)]
        assert await engine.heartbeat([], lease=LEASE) == []

    async def test_a_beat_brings_back_that_somebody_asked_to_stop(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.cancel([task.id], "no longer needed")
        for _ in range(2):
            answer = await engine.heartbeat([Heartbeat(task.lease)], lease=LEASE)
            assert answer == [Held(task.lease, "no longer needed")]

    async def test_a_beat_may_come_from_another_thread_and_event_loop(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE / 2)
        beats = [Heartbeat(task.lease, HALF)]

        def beat() -> list[Held]:
            async def once() -> list[Held]:
                return await engine.heartbeat(beats, lease=LEASE)

            return asyncio.run(once())

        assert await asyncio.to_thread(beat) == [Held(task.lease)]
        stored = await self.one(engine, task)
        assert (stored.progress, stored.lease_until) == (HALF, clock() + LEASE)

    async def test_beats_from_a_thread_do_not_disturb_what_goes_on_here(self, engine: Engine) -> None:
        task = await self.running(engine)

        async def beat() -> None:
            for number in range(20):
                held = await engine.heartbeat([Heartbeat(task.lease, Progress(done=number))], lease=LEASE)
                assert held == [Held(task.lease)]

        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(asyncio.run, beat()))
            for _ in range(20):
                await engine.enqueue([self.task()])
        assert len(await self.claim(engine)) == 20
