"""The tasks behind a task: they wait, follow, and are cancelled because of it."""

from asyncio import sleep
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from afterwards.core.settling import Cancelled, Outcome
from afterwards.core.task import NewTask, State, Task
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
    ids,
)

TIMEOUT = 30.0
"""Seconds of real time that an engine may take for very many tasks."""


class ChainHelpers(Conformance):
    def chain(self, length: int, **fields: Any) -> list[NewTask]:
        """Return calls, each behind the one before it."""
        tasks: list[NewTask] = []
        for _ in range(length):
            tasks.append(self.task(after=tasks[-1].id if tasks else None, **fields))
        return tasks

    async def broken(self, engine: Engine, length: int, outcome: Outcome = FAILURE) -> list[Task]:
        """Return a chain whose first task has ended with this outcome."""
        tasks = self.chain(length)
        await engine.enqueue(tasks)
        [first] = await self.claim(engine)
        await self.finish(engine, first, outcome)
        return await engine.get(ids(tasks))

    async def until(self, engine: Engine, tasks: Sequence[Task | NewTask], state: State) -> None:
        """Wait until all of them are in this state. If there are very many, that takes a little longer."""
        deadline = monotonic() + TIMEOUT
        while set(await self.states(engine, *tasks)) != {state}:
            assert monotonic() < deadline, "they are not in this state"
            await sleep(0.005)


class Chains(ChainHelpers):
    """A request's tasks run in the order in which they were added."""

    async def test_the_tasks_behind_wait_and_follow_on_success(self, engine: Engine) -> None:
        tasks = self.chain(3)
        stored = await engine.enqueue(tasks)
        assert [task.state for task in stored] == [State.QUEUED, State.WAITING, State.WAITING]
        for new in tasks:
            [task] = await self.claim(engine)
            assert task.id == new.id
            await self.succeed(engine, task)
        assert await self.states(engine, *tasks) == [State.SUCCEEDED] * 3

    async def test_all_that_come_after_the_same_task_follow_it(self, engine: Engine) -> None:
        first = await self.running(engine)
        behind = [self.task(after=first.id) for _ in range(3)]
        await engine.enqueue(behind)
        await self.succeed(engine, first)
        assert ids(await self.claim(engine)) == ids(behind)

    @pytest.mark.parametrize("outcome", [RETRY, SNOOZE, RELEASE])
    async def test_another_attempt_holds_the_tasks_behind(self, engine: Engine, outcome: Outcome) -> None:
        _, second, third = await self.broken(engine, 3, outcome)
        assert [second.state, third.state] == [State.WAITING] * 2

    async def test_the_loss_of_a_worker_holds_the_tasks_behind(self, engine: Engine, clock: FakeClock) -> None:
        tasks = self.chain(2)
        await engine.enqueue(tasks)
        running = await self.claim(engine)
        clock.advance(LEASE)
        await self.lose(engine, running)
        assert await self.states(engine, *tasks) == [State.QUEUED, State.WAITING]

    async def test_a_failure_cancels_the_tasks_behind_and_says_why(self, engine: Engine, clock: FakeClock) -> None:
        first, *behind = await self.broken(engine, 4)
        assert first.state is State.FAILED
        assert [(task.state, task.cause, task.finished_at) for task in behind] == [
            (State.CANCELLED, first.id, clock())
        ] * 3
        [reason, *_] = [task.reason for task in behind]
        assert reason == f"greet ({first.id}), which comes before it, failed"
        assert await self.claim(engine) == []

    async def test_a_cancelled_attempt_cancels_the_tasks_behind(self, engine: Engine) -> None:
        first, second, _ = await self.broken(engine, 3, Cancelled("no"))
        assert (second.state, second.cause) == (State.CANCELLED, first.id)
        assert second.reason == f"greet ({first.id}), which comes before it, was cancelled"

    @pytest.mark.parametrize("held", [False, True])
    async def test_cancelling_a_task_cancels_those_behind_it(self, engine: Engine, held: bool) -> None:
        tasks = self.chain(3, held=held)
        await engine.enqueue(tasks)
        await engine.cancel([tasks[0].id], "not wanted")
        stored = await engine.get(ids(tasks))
        assert [(task.state, task.cause) for task in stored] == [
            (State.CANCELLED, None),
            (State.CANCELLED, tasks[0].id),
            (State.CANCELLED, tasks[0].id),
        ]

    async def test_cancelling_in_the_middle_leaves_those_before_it(self, engine: Engine) -> None:
        first, second, third = self.chain(3)
        await engine.enqueue([first, second, third])
        await engine.cancel([second.id], "not wanted")
        stored = await engine.get(ids([first, second, third]))
        assert [(task.state, task.cause) for task in stored] == [
            (State.QUEUED, None),
            (State.CANCELLED, None),
            (State.CANCELLED, second.id),
        ]

    async def test_cancelling_a_running_task_cancels_those_behind_it_when_it_has_stopped(self, engine: Engine) -> None:
        first, second = self.chain(2)
        await engine.enqueue([first, second])
        [running] = await self.claim(engine)
        await engine.cancel([first.id], "not wanted")
        assert await self.states(engine, first, second) == [State.RUNNING, State.WAITING]
        await self.finish(engine, running, RETRY)
        assert await self.states(engine, first, second) == [State.CANCELLED, State.CANCELLED]

    async def test_a_task_that_kills_its_workers_cancels_those_behind_it(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        first, second = self.chain(2)
        await engine.enqueue([first, second])
        while running := await self.claim(engine):
            clock.advance(LEASE)
            await self.lose(engine, running)
        assert await self.states(engine, first, second) == [State.FAILED, State.CANCELLED]

    async def test_several_chains_are_settled_in_one_call(self, engine: Engine) -> None:
        good, bad = self.chain(3), self.chain(3)
        await engine.enqueue([*good, *bad])
        first, other = await self.claim(engine)
        await engine.finish([self.settled(first, SUCCESS), self.settled(other, FAILURE)])
        assert await self.states(engine, *good, *bad) == [
            State.SUCCEEDED,
            State.QUEUED,
            State.WAITING,
            State.FAILED,
            State.CANCELLED,
            State.CANCELLED,
        ]

    async def test_a_long_chain_is_cancelled_and_brought_back_as_a_whole(self, engine: Engine) -> None:
        tasks = self.chain(1200)
        await engine.enqueue(tasks)
        await engine.cancel([tasks[0].id], "not wanted")
        assert set(await self.states(engine, *tasks)) == {State.CANCELLED}
        await engine.requeue([tasks[0].id])
        assert await self.states(engine, *tasks) == [State.QUEUED] + [State.WAITING] * 1199

    async def test_a_failure_cancels_very_many_behind_it(self, engine: Engine) -> None:
        tasks = await self.broken(engine, 700)
        await self.until(engine, tasks[1:], State.CANCELLED)
        before, last = await engine.get(ids(tasks[-2:]))
        assert (last.cause, last.reason) == (tasks[0].id, f"greet ({before.id}), which comes before it, was cancelled")

    async def test_very_many_follow_the_same_success(self, engine: Engine) -> None:
        first = await self.running(engine)
        behind = [self.task(after=first.id) for _ in range(700)]
        await engine.enqueue(behind)
        await self.succeed(engine, first)
        await self.until(engine, behind, State.QUEUED)

    async def test_very_many_that_are_cancelled_together_have_the_same_reasons_as_few(self, engine: Engine) -> None:
        """Tasks behind another one are cancelled because of it, wherever they are in the list."""
        tasks = self.chain(700)
        await engine.enqueue(tasks)
        cancelled = await engine.cancel(ids(tasks), "not wanted")
        assert ids(cancelled) == ids(tasks)
        assert {task.state for task in cancelled} == {State.CANCELLED}
        assert [task.cause for task in cancelled] == [None] + [tasks[0].id] * 699

    async def test_a_task_stored_behind_a_success_is_queued(self, engine: Engine) -> None:
        first = await self.ended(engine)
        [task] = await engine.enqueue([self.task(after=first.id)])
        assert (task.state, task.after) == (State.QUEUED, first.id)

    @pytest.mark.parametrize("outcome", [FAILURE, Cancelled("no"), SUCCESS])
    async def test_the_absence_of_the_task_before_is_no_success(
        self, engine: Engine, clock: FakeClock, outcome: Outcome
    ) -> None:
        first = await self.ended(engine, outcome)
        clock.advance(first.retention)
        assert await engine.prune(100) == 1
        second = self.task(after=first.id)
        stored = await engine.enqueue([second, self.task(after=second.id)])
        assert [(task.state, task.finished_at) for task in stored] == [(State.CANCELLED, clock())] * 2
        assert stored[0].reason == f"{first.id}, which comes before it, is not on record: it may not have succeeded"
        assert stored[1].reason == f"greet ({second.id}), which comes before it, was cancelled"
        assert (stored[0].cause, stored[1].cause) == (None, second.id)
        assert await self.claim(engine) == []

    async def test_behind_a_task_that_was_never_stored_none_begins(self, engine: Engine) -> None:
        unknown = self.task().id
        claim = self.claim_for("sender")
        plain, held, late = await engine.enqueue(
            [self.task(after=unknown), self.task(after=unknown, held=True), self.task(after=unknown, wait=SOON)],
            claim=claim,
        )
        assert [task.state for task in (plain, held, late)] == [State.CANCELLED] * 3
        await engine.publish([(held.lease, None)])
        assert await self.states(engine, held) == [State.CANCELLED]

    async def test_one_cancelled_for_a_record_that_is_gone_can_be_requeued_by_hand(self, engine: Engine) -> None:
        [task, behind] = self.chain(2)
        task = replace(task, after=self.task().id)
        await engine.enqueue([task, behind])
        assert ids(await engine.requeue([task.id])) == [task.id]
        assert await self.states(engine, task, behind) == [State.QUEUED, State.WAITING]

    async def test_the_order_of_a_long_request_goes_on_behind_a_pruned_record(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        first = await self.ended(engine)
        clock.advance(first.retention)
        assert await engine.prune(100) == 1
        [task] = await engine.enqueue([self.task(after=first.id, chained=True)])
        assert task.state is State.QUEUED

    @pytest.mark.parametrize(("outcome", "how"), [(FAILURE, "failed"), (Cancelled("no"), "was cancelled")])
    async def test_tasks_stored_behind_a_failure_are_cancelled(
        self, engine: Engine, clock: FakeClock, outcome: Outcome, how: str
    ) -> None:
        first = await self.ended(engine, outcome)
        second = self.task(after=first.id)
        stored = await engine.enqueue([second, self.task(after=second.id)])
        assert [(task.state, task.cause, task.finished_at) for task in stored] == [
            (State.CANCELLED, first.id, clock())
        ] * 2
        assert stored[0].reason == f"greet ({first.id}), which comes before it, {how}"

    async def test_a_task_stored_behind_one_that_runs_waits(self, engine: Engine) -> None:
        first = await self.running(engine)
        [task] = await engine.enqueue([self.task(after=first.id)])
        assert task.state is State.WAITING
        await self.succeed(engine, first)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_delay_is_kept_behind_another_task(self, engine: Engine, clock: FakeClock) -> None:
        first = await self.running(engine)
        [task] = await engine.enqueue([self.task(after=first.id, wait=SOON)])
        assert task.state is State.WAITING
        await self.succeed(engine, first)
        stored = await self.one(engine, task)
        assert (stored.state, stored.run_at) == (State.SCHEDULED, clock() + SOON)

    async def test_a_delay_that_passed_while_it_waited_counts(self, engine: Engine, clock: FakeClock) -> None:
        first = await self.running(engine)
        [task] = await engine.enqueue([self.task(after=first.id, wait=SOON)])
        clock.advance(SOON)
        assert await self.claim(engine) == []
        await self.succeed(engine, first)
        assert ids(await self.claim(engine)) == [task.id]
