"""Finish with every outcome, and the reaper."""

from dataclasses import replace
from datetime import timedelta

import pytest

from afterwards.core.settling import MOST_CRASHES, Cancelled, Outcome, Raised, Succeeded
from afterwards.core.task import Failure, FailureKind, State, Task
from afterwards.engine import Engine, Heartbeat
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import (
    ALL,
    FAILURE,
    HALF,
    LEASE,
    MICROSECOND,
    RELEASE,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
    ids,
)


class Finishing(Conformance):
    """The end of an attempt is stored once, with all its effects."""

    async def test_a_success_keeps_its_result_and_needs_no_failure(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(1)
        assert await self.finish(engine, task, Succeeded('{"sent": "é 🦉"}')) == []
        expected = replace(
            task, state=State.SUCCEEDED, lease_until=None, finished_at=clock(), result='{"sent": "é 🦉"}'
        )
        assert await self.one(engine, task) == expected

    async def test_a_success_keeps_its_last_progress(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.heartbeat([Heartbeat(task.lease, ALL)], lease=LEASE)
        await self.succeed(engine, task)
        assert (await self.one(engine, task)).progress == ALL

    async def test_the_last_progress_comes_with_the_end_of_the_attempt(self, engine: Engine) -> None:
        tasks = [await self.running(engine) for _ in range(3)]
        await engine.heartbeat([Heartbeat(task.lease, HALF) for task in tasks], lease=LEASE)
        ends: list[Outcome] = [SUCCESS, RETRY, FAILURE]
        settled = [self.settled(task, end) for task, end in zip(tasks, ends, strict=True)]
        await engine.finish([replace(one, progress=ALL) for one in settled])
        assert [task.progress for task in await engine.get(ids(tasks))] == [ALL] * 3

    async def test_a_failure_is_recorded_in_full(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        raised = Raised(error=KeyError("é"), kind=FailureKind.TIMED_OUT, traceback="Traceback …\n  x")
        assert await self.finish(engine, task, raised) == []
        failure = Failure(
            attempt=1,
            at=clock(),
            worker="worker",
            kind=FailureKind.TIMED_OUT,
            type="KeyError",
            message="'é'",
            traceback="Traceback …\n  x",
        )
        expected = replace(
            task, state=State.FAILED, lease_until=None, finished_at=clock(), failed=1, failures=(failure,)
        )
        assert await self.one(engine, task) == expected

    async def test_a_retry_waits_and_then_runs_again(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        await self.finish(engine, task, RETRY)
        stored = await self.one(engine, task)
        assert (stored.state, stored.failed, stored.run_at) == (State.SCHEDULED, 1, clock() + SOON)
        assert (stored.lease_until, stored.finished_at) == (None, None)
        clock.advance(SOON - MICROSECOND)
        assert await self.claim(engine) == []
        clock.advance(MICROSECOND)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_retry_without_a_wait_can_be_claimed_at_once(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.finish([replace(self.settled(task, RETRY), wait=timedelta())])
        stored = await self.one(engine, task)
        assert (stored.state, stored.run_at) == (State.QUEUED, None)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_failures_are_kept_in_order(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        for outcome in (RETRY, RELEASE, FAILURE):
            await self.finish(engine, task, outcome)
            clock.advance(SOON)
            [task] = await self.claim(engine) or [task]
        stored = await self.one(engine, task)
        kinds = [FailureKind.RAISED, FailureKind.RELEASED, FailureKind.RAISED]
        assert [(failure.attempt, failure.kind) for failure in stored.failures] == list(enumerate(kinds, start=1))
        assert (stored.state, stored.failed) == (State.FAILED, 2)

    async def test_a_snooze_waits_and_charges_nothing(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        await self.finish(engine, task, SNOOZE)
        stored = await self.one(engine, task)
        assert (stored.state, stored.run_at) == (State.SCHEDULED, clock() + SOON)
        assert (stored.failed, stored.failures) == (0, ())

    async def test_a_release_queues_the_task_and_charges_nothing(self, engine: Engine) -> None:
        task = await self.running(engine)
        await self.finish(engine, task, RELEASE)
        stored = await self.one(engine, task)
        assert (stored.state, stored.failed, stored.lease_until) == (State.QUEUED, 0, None)
        assert [failure.kind for failure in stored.failures] == [FailureKind.RELEASED]
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_cancelled_attempt_keeps_its_reason(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine, Cancelled("not wanted"))
        assert (task.state, task.reason, task.cause) == (State.CANCELLED, "not wanted", None)
        assert task.finished_at == clock()

    async def test_many_attempts_are_finished_together(self, engine: Engine) -> None:
        outcomes: list[Outcome] = [SUCCESS, FAILURE, RETRY, SNOOZE, RELEASE, Cancelled("no")]
        tasks = [await self.running(engine) for _ in outcomes]
        settled = [self.settled(task, outcome) for task, outcome in zip(tasks, outcomes, strict=True)]
        assert await engine.finish(settled) == []
        assert await self.states(engine, *tasks) == [
            State.SUCCEEDED,
            State.FAILED,
            State.SCHEDULED,
            State.SCHEDULED,
            State.QUEUED,
            State.CANCELLED,
        ]

    async def test_a_task_can_be_stored_with_the_end_of_another(self, engine: Engine) -> None:
        task = await self.running(engine)
        notice = self.task("tell", arguments='{"who": "é"}')
        assert await engine.finish([replace(self.settled(task, FAILURE), then=notice)]) == []
        stored = await self.one(engine, notice)
        assert (stored.state, stored.arguments) == (State.QUEUED, '{"who": "é"}')
        assert ids(await self.claim(engine, names=["tell"])) == [notice.id]

    async def test_a_late_worker_stores_no_task_with_its_end(self, engine: Engine) -> None:
        task = await self.ended(engine)
        notice = self.task("tell")
        assert await engine.finish([replace(self.settled(task, FAILURE), then=notice)]) == [task.lease]
        assert await engine.get([notice.id]) == []

    async def test_a_task_stored_with_an_end_is_stored_once(self, engine: Engine) -> None:
        first, second = await self.running(engine), await self.running(engine)
        [notice] = await engine.enqueue([self.task("tell")])
        await engine.cancel([notice.id], "not wanted")
        settled = [
            replace(self.settled(task, FAILURE), then=self.task("tell", id=notice.id)) for task in (first, second)
        ]
        await engine.finish(settled)
        assert await self.states(engine, first, second, notice) == [State.FAILED, State.FAILED, State.CANCELLED]

    async def test_finishing_nothing_refuses_nothing(self, engine: Engine) -> None:
        assert await engine.finish([]) == []


class Losing(Conformance):
    """An attempt whose worker is dead is given up by another worker."""

    async def test_a_lease_expires(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE - MICROSECOND)
        assert await engine.expired(limit=10) == []
        clock.advance(MICROSECOND)
        assert await engine.expired(limit=10) == [task]

    async def test_only_so_many_expired_are_given(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(3)])
        await self.claim(engine)
        clock.advance(LEASE)
        assert len(await engine.expired(limit=2)) == 2
        assert len(await engine.expired(limit=10)) == 3

    async def test_only_running_tasks_expire(self, engine: Engine, clock: FakeClock) -> None:
        await self.ended(engine)
        await self.finish(engine, await self.running(engine), SNOOZE)
        await engine.enqueue([self.task(), self.task(held=True)])
        clock.advance(LEASE * 10)
        assert await engine.expired(limit=10) == []

    async def test_a_lost_task_can_be_claimed_again_at_once(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE)
        assert await self.lose(engine, [task]) == []
        lost = await self.one(engine, task)
        assert (lost.state, lost.suspect, lost.crashed, lost.lease_until) == (State.QUEUED, True, 0, None)
        assert [(failure.attempt, failure.kind) for failure in lost.failures] == [(1, FailureKind.CRASHED)]
        assert await engine.expired(limit=10) == []
        [again] = await self.claim(engine, "another")
        assert (again.id, again.attempt, again.worker) == (task.id, 2, "another")

    async def test_a_task_that_keeps_killing_its_worker_fails(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task()])
        for _ in range(MOST_CRASHES + 1):
            [task] = await self.claim(engine)
            clock.advance(LEASE)
            await self.lose(engine, [task])
        failed = await self.one(engine, task)
        assert (failed.state, failed.crashed, failed.failed, failed.suspect) == (State.FAILED, MOST_CRASHES, 0, False)
        assert (failed.finished_at, len(failed.failures)) == (clock(), MOST_CRASHES + 1)

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, RETRY, SNOOZE])
    async def test_a_suspect_that_ends_by_itself_is_no_suspect_any_more(
        self, engine: Engine, clock: FakeClock, outcome: Outcome
    ) -> None:
        again = await self.lost_and_claimed(engine, clock)
        await self.finish(engine, again, outcome)
        assert not (await self.one(engine, again)).suspect

    async def test_a_suspect_that_is_released_stays_one(self, engine: Engine, clock: FakeClock) -> None:
        again = await self.lost_and_claimed(engine, clock)
        await self.finish(engine, again, RELEASE)
        assert (await self.one(engine, again)).suspect

    async def lost_and_claimed(self, engine: Engine, clock: FakeClock) -> Task:
        task = await self.running(engine)
        clock.advance(LEASE)
        await self.lose(engine, [task])
        [again] = await self.claim(engine)
        return again
