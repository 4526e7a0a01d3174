"""Requeue: a finished task runs again, and those that were cancelled because of it come back."""

import pytest

from afterwards.core.settling import Cancelled, Outcome
from afterwards.core.task import Failure, FailureKind, State
from afterwards.engine import Engine, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.chains import ChainHelpers
from afterwards.testing.conformance.support import (
    FAILURE,
    LEASE,
    RETRY,
    SOON,
    SUCCESS,
    ids,
)


class Requeueing(ChainHelpers):
    """A finished task can be run again by hand."""

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, Cancelled("no")])
    async def test_a_finished_task_starts_afresh(self, engine: Engine, clock: FakeClock, outcome: Outcome) -> None:
        task = await self.ended(engine, outcome)
        clock.advance(1)
        [queued] = await engine.requeue([task.id])
        assert (queued.state, queued.failed, queued.crashed) == (State.QUEUED, 0, 0)
        assert (queued.finished_at, queued.reason, queued.result, queued.run_at) == (None, None, None, None)
        assert (queued.attempt, queued.failures, queued.created_at) == (1, task.failures, task.created_at)
        assert await self.one(engine, task) == queued
        [again] = await self.claim(engine)
        assert again.attempt == 2

    async def test_the_retries_count_from_zero(self, engine: Engine) -> None:
        task = await self.ended(engine, FAILURE)
        await engine.requeue([task.id])
        [again] = await self.claim(engine)
        await self.finish(engine, again, RETRY)
        stored = await self.one(engine, task)
        assert (stored.state, stored.failed) == (State.SCHEDULED, 1)

    async def test_a_task_that_killed_its_workers_is_no_suspect_any_more(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        await engine.enqueue([self.task()])
        while running := await self.claim(engine):
            clock.advance(LEASE)
            await self.lose(engine, running)
        [failed] = await engine.find(Query())
        [queued] = await engine.requeue([failed.id])
        assert (queued.crashed, queued.suspect, queued.failures) == (0, False, failed.failures)

    async def test_a_task_that_has_not_finished_is_left_alone(self, engine: Engine) -> None:
        running = await self.running(engine)
        stored = await engine.enqueue([self.task(), self.task(wait=SOON), self.task(after=running.id)])
        assert await engine.requeue([running.id, *ids(stored), self.task().id]) == []
        assert await engine.get([running.id, *ids(stored)]) == [running, *stored]

    async def test_a_plain_function_s_record_cannot_run_again(self, engine: Engine) -> None:
        failure = Failure(attempt=1, at=START, worker="w", kind=FailureKind.RAISED)
        [record] = await engine.enqueue([self.task(failure=failure)])
        assert await engine.requeue([record.id]) == []
        assert await self.one(engine, record) == record

    async def test_those_cancelled_for_its_sake_come_back_behind_it(self, engine: Engine) -> None:
        first, second, third = await self.broken(engine, 3)
        assert ids(await engine.requeue([first.id])) == [first.id]
        stored = await engine.get(ids([first, second, third]))
        assert [(task.state, task.cause, task.reason, task.finished_at) for task in stored] == [
            (State.QUEUED, None, None, None),
            (State.WAITING, None, None, None),
            (State.WAITING, None, None, None),
        ]
        for expected in (first, second, third):
            [task] = await self.claim(engine)
            assert task.id == expected.id
            await self.succeed(engine, task)

    async def test_those_cancelled_by_hand_stay_cancelled_and_those_behind_them(self, engine: Engine) -> None:
        tasks = self.chain(4)
        await engine.enqueue(tasks)
        await engine.cancel([tasks[2].id], "not wanted")
        await engine.cancel([tasks[0].id], "not wanted either")
        await engine.requeue([tasks[0].id])
        assert await self.states(engine, *tasks) == [
            State.QUEUED,
            State.WAITING,
            State.CANCELLED,
            State.CANCELLED,
        ]

    async def test_those_that_finished_stay_as_they_are(self, engine: Engine) -> None:
        first, second = self.chain(2)
        await engine.enqueue([first, second])
        for _ in range(2):
            await self.succeed(engine, *await self.claim(engine))
        before = await self.one(engine, second)
        await engine.requeue([first.id])
        assert await self.one(engine, second) == before

    async def test_one_in_the_middle_brings_back_those_behind_it_only(self, engine: Engine) -> None:
        first, second, third = await self.broken(engine, 3)
        assert ids(await engine.requeue([second.id])) == [second.id]
        assert await self.states(engine, first, second, third) == [State.FAILED, State.QUEUED, State.WAITING]

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
    async def test_a_chain_requeued_as_a_whole_keeps_its_order(self, engine: Engine, order: list[int]) -> None:
        tasks = await self.broken(engine, 3)
        assert ids(await engine.requeue([tasks[number].id for number in order])) == [tasks[0].id]
        assert await self.states(engine, *tasks) == [State.QUEUED, State.WAITING, State.WAITING]

    async def test_a_requeued_task_that_fails_again_cancels_those_behind_it_again(self, engine: Engine) -> None:
        tasks = await self.broken(engine, 3)
        await engine.requeue([tasks[0].id])
        [first] = await self.claim(engine)
        await self.finish(engine, first, FAILURE)
        stored = await engine.get(ids(tasks))
        assert [task.state for task in stored] == [State.FAILED, State.CANCELLED, State.CANCELLED]
        assert [failure.attempt for failure in stored[0].failures] == [1, 2]

    async def test_a_long_chain_requeued_as_a_whole_keeps_its_order(self, engine: Engine) -> None:
        tasks = self.chain(700)
        await engine.enqueue(tasks)
        await engine.cancel([tasks[0].id], "not wanted")
        assert ids(await engine.requeue(ids(tasks))) == [tasks[0].id]
        assert await self.states(engine, *tasks) == [State.QUEUED] + [State.WAITING] * 699

    async def test_very_many_behind_the_same_task_come_back_with_it(self, engine: Engine) -> None:
        first = await self.running(engine)
        behind = [self.task(after=first.id) for _ in range(700)]
        await engine.enqueue(behind)
        await self.finish(engine, first, FAILURE)
        await self.until(engine, behind, State.CANCELLED)
        await engine.requeue([first.id])
        assert await self.states(engine, first, *behind) == [State.QUEUED] + [State.WAITING] * 700

    async def test_very_many_are_requeued_together_in_the_order_stored(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(700)]
        await engine.enqueue(tasks)
        await engine.cancel(ids(tasks), "not wanted")
        assert ids(await engine.requeue(ids(tasks[::-1]) * 2)) == ids(tasks)
        assert await self.states(engine, *tasks) == [State.QUEUED] * 700

    async def test_several_are_requeued_together(self, engine: Engine) -> None:
        tasks = [await self.ended(engine, FAILURE) for _ in range(3)]
        assert {task.id for task in await engine.requeue(ids(tasks))} == set(ids(tasks))
        assert await self.states(engine, *tasks) == [State.QUEUED] * 3
