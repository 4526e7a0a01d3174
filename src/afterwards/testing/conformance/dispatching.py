"""Tasks are handed to a fleet of other software, which claims what it was handed."""

from datetime import timedelta

from afterwards.core.limits import Limit, Rate
from afterwards.core.settling import SetAside
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Dispatch, Dispatched, Engine, Paused
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import FAILURE, LEASE, MICROSECOND, RELEASE, RETRY, SOON, Conformance, ids

AGAIN = timedelta(minutes=1)
ONE_AT_A_TIME = {"greet": Limit(max_concurrency=1)}


class DispatchingConformance(Conformance):
    """The helpers of the tests about dispatches."""

    async def dispatch(self, engine: Engine, *, limit: int = 100, **fields: object) -> Dispatched:
        ahead = self.claim_for("dispatcher", limit=limit, **fields)  # type: ignore[arg-type]
        return await engine.dispatch(ahead, again=AGAIN)

    async def sent(self, engine: Engine, **fields: object) -> list[Lease]:
        return [one.lease for one in (await self.dispatch(engine, **fields)).tasks]  # type: ignore[arg-type]

    async def arrive(self, engine: Engine, *leases: Lease, **fields: object) -> list[Task]:
        """Claim for the fleet what has arrived there."""
        return await engine.claim(self.claim_for("fleet", starts=leases, **fields))  # type: ignore[arg-type]


class Dispatching(DispatchingConformance):
    """A dispatcher sends each task that may start, once, and again if it does not arrive."""

    async def test_a_task_that_may_start_is_sent_once(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(priority=7)])
        sent = Dispatch(lease=Lease(task.id, 1), queue="default", priority=7)
        assert await self.dispatch(engine) == ([sent], False)
        assert await self.dispatch(engine) == ([], False)
        assert await self.one(engine, task) == task

    async def test_without_tasks_there_is_nothing_to_send(self, engine: Engine) -> None:
        assert await self.dispatch(engine) == ([], False)

    async def test_they_come_in_the_order_of_a_claim(self, engine: Engine) -> None:
        low, high, other = self.task(priority=-1), self.task(priority=1), self.task(queue="mail")
        await engine.enqueue([low, high, other])
        assert await self.sent(engine) == leases(high, other, low)

    async def test_only_what_may_start_now_is_sent(self, engine: Engine, clock: FakeClock) -> None:
        delayed, first, unknown, paused = self.task(wait=SOON), self.task(), self.task("else"), self.task(queue="mail")
        behind, expired = self.task(after=first.id), self.task(expires=timedelta(seconds=1))
        await engine.enqueue([delayed, first, behind, unknown, paused, expired])
        await engine.pause(Paused(queues=frozenset({"mail"})))
        clock.advance(1)
        assert await self.sent(engine) == leases(first)
        assert await self.states(engine, expired) == [State.CANCELLED]
        clock.advance(SOON)
        assert await self.sent(engine) == leases(delayed)

    async def test_only_the_queues_that_were_asked_for(self, engine: Engine) -> None:
        here, there = self.task(queue="mail"), self.task()
        await engine.enqueue([here, there])
        assert await self.sent(engine, queues=["mail"]) == leases(here)

    async def test_what_is_set_aside_is_not_sent(self, engine: Engine) -> None:
        await self.ended(engine, SetAside("its arguments do not fit"))
        assert await self.sent(engine) == []

    async def test_suspects_are_sent_however_many_there_are(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(3)])
        lost = await self.claim(engine)
        clock.advance(LEASE)
        await self.lose(engine, lost)
        assert await self.sent(engine) == [Lease(task.id, 2) for task in lost]

    async def test_from_each_queue_so_many(self, engine: Engine) -> None:
        mails = [self.task(queue="mail") for _ in range(3)]
        reports = [self.task(queue="reports") for _ in range(2)]
        await engine.enqueue([*mails, *reports])
        found = await self.dispatch(engine, limit=2)
        assert ([one.lease for one in found.tasks], found.more) == (leases(*mails[:2], *reports), True)
        assert await self.dispatch(engine, limit=2) == ([], True)

    async def test_when_some_have_arrived_those_behind_them_are_sent(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(4)]
        await engine.enqueue(tasks)
        assert await self.sent(engine, limit=2) == leases(*tasks[:2])
        await self.arrive(engine, Lease(tasks[0].id, 1))
        assert await self.sent(engine, limit=2) == leases(tasks[2])

    async def test_a_better_task_is_sent_though_enough_are_on_their_way(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(2)]
        await engine.enqueue(tasks)
        await self.sent(engine, limit=2)
        better = self.task(priority=1)
        await engine.enqueue([better])
        assert await self.sent(engine, limit=2) == leases(better)

    async def test_what_does_not_arrive_is_sent_again(self, engine: Engine, clock: FakeClock) -> None:
        task = self.task()
        await engine.enqueue([task])
        await self.sent(engine)
        clock.advance(AGAIN - MICROSECOND)
        assert await self.sent(engine) == []
        clock.advance(MICROSECOND)
        assert await self.sent(engine) == leases(task)

    async def test_the_span_is_doubled_each_time(self, engine: Engine, clock: FakeClock) -> None:
        task = self.task()
        await engine.enqueue([task])
        await self.sent(engine)
        for span in (AGAIN, 2 * AGAIN, 4 * AGAIN):
            clock.advance(span - MICROSECOND)
            assert await self.sent(engine) == []
            clock.advance(MICROSECOND)
            assert await self.sent(engine) == leases(task)

    async def test_a_clock_that_was_ahead_keeps_nothing_back(self, engine: Engine, clock: FakeClock) -> None:
        clock.advance(timedelta(days=1))
        task = self.task()
        await engine.enqueue([task])
        await self.sent(engine)
        clock.advance(-timedelta(days=1))
        assert await self.sent(engine) == leases(task)

    async def test_an_old_dispatch_is_forgotten(self, engine: Engine, clock: FakeClock) -> None:
        task = self.task()
        await engine.enqueue([task])
        for _ in range(3):
            await self.sent(engine)
            clock.advance(4 * AGAIN)
        clock.advance(timedelta(days=1))
        await engine.prune(limit=100)
        assert await self.sent(engine) == leases(task)
        clock.advance(AGAIN)
        assert await self.sent(engine) == leases(task)

    async def test_the_next_attempt_is_another_dispatch(self, engine: Engine, clock: FakeClock) -> None:
        task = self.task()
        await engine.enqueue([task])
        await self.sent(engine)
        [running] = await self.arrive(engine, Lease(task.id, 1))
        await self.finish(engine, running, RETRY)
        clock.advance(SOON)
        assert await self.sent(engine) == [Lease(task.id, 2)]


class DispatchedLimits(DispatchingConformance):
    """Tasks that are on their way count against limits."""

    async def test_no_more_are_sent_than_may_run_at_once(self, engine: Engine) -> None:
        first, second = self.task(limit_key="*"), self.task(limit_key="*")
        await engine.enqueue([first, second])
        assert await self.sent(engine, limits=ONE_AT_A_TIME) == leases(first)
        assert await self.sent(engine, limits=ONE_AT_A_TIME) == []
        [running] = await self.arrive(engine, Lease(first.id, 1), limits=ONE_AT_A_TIME)
        assert await self.sent(engine, limits=ONE_AT_A_TIME) == []
        await self.succeed(engine, running)
        assert await self.sent(engine, limits=ONE_AT_A_TIME) == leases(second)

    async def test_each_limit_key_is_counted_by_itself(self, engine: Engine) -> None:
        tasks = [self.task(limit_key=key) for key in ("ada", "ada", "eve")]
        await engine.enqueue(tasks)
        assert await self.sent(engine, limits=ONE_AT_A_TIME) == leases(tasks[0], tasks[2])

    async def test_a_queue_that_has_enough_takes_no_room_of_another(self, engine: Engine) -> None:
        two_at_a_time = {"greet": Limit(max_concurrency=2)}
        mails = [self.task(queue="mail", limit_key="*") for _ in range(2)]
        other = self.task(queue="other", limit_key="*")
        await engine.enqueue([*mails, other])
        assert await self.sent(engine, limit=1, limits=two_at_a_time) == leases(mails[0], other)

    async def test_room_that_another_queue_uses_leaves_the_place_to_the_next_limit_key(self, engine: Engine) -> None:
        mail = self.task(queue="mail", limit_key="ada", priority=1)
        ada, eve = self.task(limit_key="ada"), self.task(limit_key="eve")
        await engine.enqueue([mail, ada, eve])
        assert await self.sent(engine, limit=1, limits=ONE_AT_A_TIME) == leases(mail, eve)

    async def test_a_rate_counts_what_has_started(self, engine: Engine, clock: FakeClock) -> None:
        rate = {"greet": Limit(rate=Rate(2, SOON))}
        tasks = [self.task(limit_key="*") for _ in range(3)]
        await engine.enqueue(tasks)
        assert await self.sent(engine, limits=rate) == leases(*tasks[:2])
        assert len(await self.arrive(engine, *leases(*tasks[:2]), limits=rate)) == 2
        assert await self.sent(engine, limits=rate) == []
        clock.advance(SOON)
        assert await self.sent(engine, limits=rate) == leases(tasks[2])


class Arriving(DispatchingConformance):
    """The fleet claims what has arrived, and each attempt starts once."""

    async def test_what_arrives_is_claimed(self, engine: Engine) -> None:
        task, other = self.task(), self.task(priority=1)
        await engine.enqueue([task, other])
        await self.sent(engine)
        [taken] = await self.arrive(engine, Lease(task.id, 1))
        assert (taken.lease, taken.worker, taken.state) == (Lease(task.id, 1), "fleet", State.RUNNING)

    async def test_what_arrives_twice_is_refused_the_second_time(self, engine: Engine) -> None:
        task = self.task()
        await engine.enqueue([task])
        assert len(await self.arrive(engine, Lease(task.id, 1))) == 1
        assert await self.arrive(engine, Lease(task.id, 1)) == []

    async def test_what_was_sent_for_an_earlier_attempt_is_refused(self, engine: Engine, clock: FakeClock) -> None:
        running = await self.running(engine)
        await self.finish(engine, running, RETRY)
        clock.advance(SOON)
        assert await self.arrive(engine, running.lease) == []
        assert ids(await self.arrive(engine, Lease(running.id, 2))) == [running.id]

    async def test_what_was_never_stored_is_refused(self, engine: Engine) -> None:
        task = self.task()
        await engine.enqueue([task])
        assert await self.arrive(engine, Lease(self.task().id, 1), Lease("forged", 1), Lease(task.id, 2)) == []
        assert await self.arrive(engine, Lease("\ud83d\0", -1), Lease(task.id, 0), Lease(task.id, 2**70)) == []
        assert await self.arrive(engine) == []

    async def test_what_has_ended_is_refused(self, engine: Engine) -> None:
        ended = await self.ended(engine, FAILURE)
        cancelled = self.task()
        await engine.enqueue([cancelled])
        await engine.cancel([cancelled.id], "no longer needed")
        assert await self.arrive(engine, Lease(ended.id, 2), Lease(cancelled.id, 1)) == []

    async def test_what_is_set_aside_is_refused_and_stays_so(self, engine: Engine) -> None:
        task = await self.ended(engine, SetAside("its arguments do not fit"))
        assert await self.arrive(engine, Lease(task.id, task.attempt + 1)) == []
        assert await self.one(engine, task) == task

    async def test_what_a_limit_or_a_pause_refuses_is_sent_again_when_it_may_start(self, engine: Engine) -> None:
        first, second = self.task(limit_key="*"), self.task(limit_key="*")
        await engine.enqueue([first, second])
        await self.sent(engine)  # as if there were no limit
        [running] = await self.arrive(engine, Lease(first.id, 1), limits=ONE_AT_A_TIME)
        assert await self.arrive(engine, Lease(second.id, 1), limits=ONE_AT_A_TIME) == []
        await self.succeed(engine, running)
        await engine.pause(Paused(names=frozenset({"greet"})))
        assert await self.arrive(engine, Lease(second.id, 1), limits=ONE_AT_A_TIME) == []
        await engine.resume(Paused(names=frozenset({"greet"})))
        assert await self.sent(engine, limits=ONE_AT_A_TIME) == leases(second)

    async def test_a_forged_attempt_does_not_end_the_way_of_the_true_one(self, engine: Engine) -> None:
        task = self.task()
        await engine.enqueue([task])
        await self.sent(engine)
        assert await self.arrive(engine, Lease(task.id, 5)) == []
        assert await self.sent(engine) == []

    async def test_a_task_that_the_fleet_gives_back_is_sent_again(self, engine: Engine) -> None:
        task = self.task()
        await engine.enqueue([task])
        await self.sent(engine)
        [running] = await self.arrive(engine, Lease(task.id, 1))
        await self.finish(engine, running, RELEASE)
        assert await self.sent(engine) == [Lease(task.id, 2)]


def leases(*tasks: NewTask) -> list[Lease]:
    """Return the leases of the tasks' first attempts."""
    return [Lease(task.id, 1) for task in tasks]
