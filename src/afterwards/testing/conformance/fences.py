"""Every write names its attempt, and is refused if the task has moved on."""

from dataclasses import replace

import pytest

from afterwards.core.settling import Cancelled, Outcome
from afterwards.core.task import FailureKind, Lease, State, Task
from afterwards.engine import Engine, Heartbeat
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import (
    FAILURE,
    HALF,
    LEASE,
    RELEASE,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
)

WRITES: dict[str, Outcome | str] = {
    "success": SUCCESS,
    "failure": FAILURE,
    "retry": RETRY,
    "snooze": SNOOZE,
    "release": RELEASE,
    "cancel": Cancelled("late"),
    "loss": "loss",
    "heartbeat": "heartbeat",
}
WAYS = (
    "lost_and_queued",
    "lost_and_running_again",
    "retrying",
    "snoozed",
    "retried_and_running",
    "succeeded",
    "failed",
    "cancelled",
    "requeued",
    "requeued_and_running",
    "requeued_and_finished",
    "pruned",
)


def without_late(task: Task) -> Task:
    """Return the task without the records of attempts that ended late."""
    return replace(task, failures=tuple(one for one in task.failures if one.kind is not FailureKind.LATE))


class Fences(Conformance):
    """A worker that was stopped, and goes on after its task has moved on."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("write", WRITES)
    async def test_a_late_worker_is_refused(self, engine: Engine, clock: FakeClock, way: str, write: str) -> None:
        late = await self.running(engine)
        await getattr(self, way)(engine, clock, late)
        before = await engine.get([late.id])
        assert await self.refused(engine, late, WRITES[write])
        assert [without_late(task) for task in await engine.get([late.id])] == before

    async def test_a_loss_is_refused_when_the_lease_was_renewed_after_it_was_seen_expired(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        await self.running(engine)
        clock.advance(LEASE)
        [seen] = await engine.expired(limit=1)
        await engine.heartbeat([Heartbeat(seen.lease)], lease=LEASE)
        renewed = await self.one(engine, seen)
        assert await self.lose(engine, [seen]) == [seen.lease]
        assert await self.one(engine, seen) == renewed
        clock.advance(LEASE)
        assert await self.lose(engine, [seen]) == []

    async def test_an_attempt_is_settled_once_when_two_workers_give_it_up(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        task = await self.running(engine)
        clock.advance(LEASE)
        assert await self.lose(engine, [task]) == []
        assert await self.lose(engine, [task]) == [task.lease]
        assert len((await self.one(engine, task)).failures) == 1

    async def test_an_attempt_settled_twice_in_one_call_is_settled_once(self, engine: Engine) -> None:
        task = await self.running(engine)
        settled = [self.settled(task, RELEASE), self.settled(task, SUCCESS)]
        assert await engine.finish(settled) == [task.lease]
        assert len((await self.one(engine, task)).failures) == 1

    async def test_an_attempt_that_succeeded_twice_in_one_call_succeeded_once(self, engine: Engine) -> None:
        task, other = await self.running(engine), await self.running(engine)
        settled = [self.settled(one, SUCCESS) for one in (task, other, task)]
        assert await engine.finish(settled) == [task.lease]

    async def test_the_id_of_a_call_that_another_task_answered_makes_no_lease(self, engine: Engine) -> None:
        [held] = await engine.enqueue([self.task(unique_key="one", held=True)])
        twin = self.task(unique_key="one")
        assert await engine.enqueue([twin]) == [held]
        await engine.publish([(Lease(twin.id, held.attempt), None)])
        assert await self.states(engine, held) == [State.SCHEDULED]
        await engine.publish([(held.lease, None)])
        assert await self.claim(engine, ids=[twin.id]) == []
        [task] = await self.claim(engine)
        alias = Lease(twin.id, task.attempt)
        assert await engine.heartbeat([Heartbeat(alias)], lease=LEASE) == []
        assert await engine.finish([replace(self.settled(task, SUCCESS), lease=alias)]) == [alias]
        assert await self.states(engine, task) == [State.RUNNING]

    async def test_one_refused_does_not_hinder_the_others(self, engine: Engine) -> None:
        late, first, second = await self.ended(engine), await self.running(engine), await self.running(engine)
        unknown = Lease(self.task().id, 1)
        settled = [self.settled(task, FAILURE) for task in (first, late, second)]
        settled.append(type(settled[0])(lease=unknown, state=settled[0].state))
        assert set(await engine.finish(settled)) == {late.lease, unknown}
        assert [task.failed for task in await engine.get([first.id, late.id, second.id])] == [1, 0, 1]

    async def test_an_attempt_that_has_not_begun_cannot_end(self, engine: Engine) -> None:
        [queued] = await engine.enqueue([self.task()])
        assert await self.finish(engine, queued, SUCCESS) == [queued.lease]
        assert await engine.heartbeat([Heartbeat(queued.lease)], lease=LEASE) == []
        assert await self.one(engine, queued) == queued

    async def refused(self, engine: Engine, late: Task, write: Outcome | str) -> bool:
        if write == "heartbeat":
            return await engine.heartbeat([Heartbeat(late.lease, HALF)], lease=LEASE) == []
        settled = self.lost(late) if isinstance(write, str) else self.settled(late, write)
        return await engine.finish([settled]) == [late.lease]

    # Ways in which the task moves on.

    async def lost_and_queued(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        clock.advance(LEASE)
        await self.lose(engine, [task])

    async def lost_and_running_again(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.lost_and_queued(engine, clock, task)
        await self.claim_again(engine)

    async def retrying(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, RETRY)

    async def snoozed(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, SNOOZE)

    async def retried_and_running(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, RETRY)
        clock.advance(SOON)
        await self.claim_again(engine)

    async def succeeded(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, SUCCESS)

    async def failed(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, FAILURE)

    async def cancelled(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, Cancelled("in time"))

    async def requeued(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, FAILURE)
        await engine.requeue([task.id])

    async def requeued_and_running(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.requeued(engine, clock, task)
        await self.claim_again(engine)

    async def requeued_and_finished(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.requeued_and_running(engine, clock, task)
        await self.finish(engine, await self.one(engine, task), SUCCESS)

    async def pruned(self, engine: Engine, clock: FakeClock, task: Task) -> None:
        await self.finish(engine, task, SUCCESS)
        clock.advance(task.retention)
        assert await engine.prune(limit=1) == 1

    async def claim_again(self, engine: Engine) -> None:
        """Claim the task for another worker, with a lease so short that only the attempt distinguishes the two."""
        [task] = await self.claim(engine, "another", lease=LEASE * 0)
        assert task.attempt == 2
