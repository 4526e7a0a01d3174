"""Cancel, before and during an attempt."""

from dataclasses import replace
from typing import Any

import pytest

from afterwards.core.settling import Cancelled, Outcome
from afterwards.core.task import State
from afterwards.engine import Engine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import (
    FAILURE,
    LEASE,
    RELEASE,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
)


class Cancelling(Conformance):
    """A cancel ends tasks that do not run, and asks running ones to stop."""

    async def test_a_queued_task_is_cancelled(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task()])
        clock.advance(1)
        [cancelled] = await engine.cancel([task.id], "not wanted")
        assert cancelled == replace(task, state=State.CANCELLED, finished_at=clock(), reason="not wanted")
        assert await self.one(engine, task) == cancelled
        assert await self.claim(engine) == []

    @pytest.mark.parametrize("fields", [{"wait": SOON}, {"held": True}])
    async def test_a_scheduled_task_is_cancelled(
        self, engine: Engine, clock: FakeClock, fields: dict[str, Any]
    ) -> None:
        [task] = await engine.enqueue([self.task(**fields)])
        [cancelled] = await engine.cancel([task.id], "not wanted")
        assert (cancelled.state, cancelled.run_at) == (State.CANCELLED, None)
        clock.advance(LEASE * 100)
        assert await self.claim(engine) == []

    async def test_a_waiting_task_is_cancelled(self, engine: Engine) -> None:
        first = await self.running(engine)
        [task] = await engine.enqueue([self.task(after=first.id)])
        [cancelled] = await engine.cancel([task.id], "not wanted")
        assert (cancelled.state, cancelled.reason, cancelled.cause) == (State.CANCELLED, "not wanted", None)
        await self.succeed(engine, first)
        assert await self.one(engine, task) == cancelled

    async def test_a_running_task_is_asked_to_stop(self, engine: Engine) -> None:
        task = await self.running(engine)
        [asked] = await engine.cancel([task.id], "not wanted")
        assert asked == replace(task, cancel_requested="not wanted")
        assert await self.one(engine, task) == asked

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, Cancelled("by itself")])
    async def test_a_finished_task_stays_as_it_is(self, engine: Engine, outcome: Outcome) -> None:
        task = await self.ended(engine, outcome)
        assert await engine.cancel([task.id], "too late") == [task]
        assert await self.one(engine, task) == task

    async def test_many_are_cancelled_and_the_unknown_left_out(self, engine: Engine) -> None:
        running = await self.running(engine)
        [queued] = await engine.enqueue([self.task()])
        answer = await engine.cancel([queued.id, self.task().id, running.id], "not wanted")
        assert [(task.id, task.state) for task in answer] == [
            (queued.id, State.CANCELLED),
            (running.id, State.RUNNING),
        ]

    @pytest.mark.parametrize("outcome", [RETRY, SNOOZE, RELEASE])
    async def test_a_cancel_that_crosses_another_attempt_wins(
        self, engine: Engine, clock: FakeClock, outcome: Outcome
    ) -> None:
        task = await self.running(engine)
        await engine.cancel([task.id], "not wanted")
        assert await self.finish(engine, task, outcome) == []
        stored = await self.one(engine, task)
        assert (stored.state, stored.reason, stored.cancel_requested) == (State.CANCELLED, "not wanted", None)
        assert (stored.run_at, stored.finished_at, stored.lease_until) == (None, clock(), None)
        assert stored.failures == tuple(filter(None, [self.settled(task, outcome).failure]))

    async def test_a_cancel_that_crosses_the_loss_of_the_worker_wins(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        await engine.cancel([task.id], "not wanted")
        clock.advance(LEASE)
        await self.lose(engine, [task])
        stored = await self.one(engine, task)
        assert (stored.state, stored.reason) == (State.CANCELLED, "not wanted")

    @pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, State.SUCCEEDED), (FAILURE, State.FAILED)])
    async def test_an_attempt_that_ended_beats_a_cancel(self, engine: Engine, outcome: Outcome, state: State) -> None:
        task = await self.running(engine)
        await engine.cancel([task.id], "too late")
        await self.finish(engine, task, outcome)
        stored = await self.one(engine, task)
        assert (stored.state, stored.reason, stored.cancel_requested) == (state, None, None)
