"""Every change of a task's state."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from afterwards.core import lifecycle, settling
from afterwards.core.lifecycle import HOLD
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.settling import MOST_CRASHES, Cancelled, Outcome, Raised, Released, Settled, Snoozed, Succeeded
from afterwards.core.task import Failure, FailureKind, Lease, NewTask, State, Task
from afterwards.core.text import TEXT_LIMIT

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = timedelta(seconds=10)
LEASE = timedelta(seconds=30)
FAILURE = Failure(attempt=1, at=NOW, worker="w", kind=FailureKind.RAISED)
UNFINISHED = [state for state in State if not state.finished]
NOT_RUNNING = [state for state in State if state is not State.RUNNING]


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": "2", "name": "thank", "arguments": "{}"} | fields)


def task(state: State = State.QUEUED, **fields: Any) -> Task:
    given: dict[str, Any] = {"id": "1", "name": "greet", "arguments": "{}", "created_at": NOW}
    return Task(state=state, **given | fields)


def running(**fields: Any) -> Task:
    return task(State.RUNNING, **{"attempt": 1, "worker": "w", "lease_until": NOW + LEASE, "started_at": NOW} | fields)


def settle(running: Task, outcome: Outcome, retry: Retry = Retry(0)) -> Settled:  # noqa: B008  # frozen
    return settling.settle(running, outcome, retry, worker="w", now=NOW, random=1)


def finish(running: Task, outcome: Outcome, retry: Retry = Retry(0), now: datetime = NOW) -> Task:  # noqa: B008  # frozen
    finished = lifecycle.finish(running, settle(running, outcome, retry), now)
    assert finished is not None
    return finished


class TestStoring:
    def test_everything_asked_is_recorded(self) -> None:
        asked = {"queue": "mail", "priority": 5, "overrides": "{}", "retention": SOON, "origin": "POST /", "after": "0"}
        stored = lifecycle.store(new(**asked), task(State.SUCCEEDED, id="0"), NOW)
        assert {name: getattr(stored, name) for name in asked} == asked
        assert (stored.id, stored.name, stored.arguments, stored.created_at) == ("2", "thank", "{}", NOW)

    def test_a_task_without_a_delay_is_queued(self) -> None:
        stored = lifecycle.store(new(), None, NOW)
        assert (stored.state, stored.run_at, stored.attempt) == (State.QUEUED, None, 0)

    @pytest.mark.parametrize("fields", [{"wait": SOON}, {"run_at": NOW + SOON}, {"run_at": NOW + SOON, "wait": LEASE}])
    def test_a_delayed_task_is_scheduled(self, fields: dict[str, Any]) -> None:
        stored = lifecycle.store(new(**fields), None, NOW)
        assert (stored.state, stored.run_at) == (State.SCHEDULED, NOW + SOON)

    @pytest.mark.parametrize("fields", [{}, {"run_at": NOW}])
    def test_a_held_task_is_scheduled_a_minute_ahead(self, fields: dict[str, Any]) -> None:
        stored = lifecycle.store(new(held=True, **fields), None, NOW)
        assert (stored.state, stored.run_at) == (State.SCHEDULED, NOW + HOLD)

    def test_a_held_task_waits_for_what_comes_later_its_request_or_its_time(self) -> None:
        assert lifecycle.store(new(held=True, wait=SOON), None, NOW).run_at == NOW + HOLD
        assert lifecycle.store(new(held=True, wait=2 * HOLD), None, NOW).run_at == NOW + 2 * HOLD

    @pytest.mark.parametrize("state", UNFINISHED)
    @pytest.mark.parametrize("held", [False, True])
    def test_a_task_waits_for_the_one_before_it(self, state: State, held: bool) -> None:
        stored = lifecycle.store(new(held=held), task(state), NOW)
        assert (stored.state, stored.run_at) == (State.WAITING, NOW)

    @pytest.mark.parametrize("fields", [{}, {"held": True}, {"wait": SOON}, {"run_at": NOW + SOON}])
    def test_behind_a_task_that_is_not_on_record_it_is_cancelled(self, fields: dict[str, Any]) -> None:
        stored = lifecycle.store(new(after="0", **fields), None, NOW)
        assert (stored.state, stored.finished_at, stored.run_at) == (State.CANCELLED, NOW, None)
        assert stored.reason == "0, which comes before it, is not on record: it may not have succeeded"

    def test_the_order_of_a_request_goes_on_behind_a_record_that_is_gone(self) -> None:
        assert lifecycle.store(new(after="0", chained=True), None, NOW).state is State.QUEUED

    @pytest.mark.parametrize("chained", [False, True])
    def test_behind_a_failure_it_is_cancelled(self, chained: bool) -> None:
        assert lifecycle.store(new(after="1", chained=chained), task(State.FAILED), NOW).state is State.CANCELLED

    def test_a_plain_function_s_failure_is_final(self) -> None:
        stored = lifecycle.store(new(failure=FAILURE, after="1"), task(State.RUNNING), NOW)
        assert (stored.state, stored.plain, stored.failures) == (State.FAILED, True, (FAILURE,))
        assert (stored.attempt, stored.failed, stored.run_at, stored.finished_at) == (1, 1, None, NOW)


class TestFollowing:
    waiting = task(State.WAITING, id="2", run_at=NOW)

    def test_after_a_success_it_is_queued(self) -> None:
        queued = replace(self.waiting, state=State.QUEUED, run_at=None)
        assert lifecycle.follow(self.waiting, task(State.SUCCEEDED), NOW) == queued
        assert lifecycle.proceed(self.waiting, NOW) == queued

    def test_the_absence_of_the_task_before_is_no_success(self) -> None:
        assert lifecycle.follow(self.waiting, None, NOW).state is State.CANCELLED

    def test_its_own_delay_still_counts(self) -> None:
        delayed = replace(self.waiting, run_at=NOW + SOON)
        assert lifecycle.follow(delayed, task(State.SUCCEEDED), NOW) == replace(delayed, state=State.SCHEDULED)

    @pytest.mark.parametrize("state", UNFINISHED)
    def test_before_that_it_waits(self, state: State) -> None:
        assert lifecycle.follow(self.waiting, task(state), NOW) == self.waiting

    @pytest.mark.parametrize(("state", "how"), [(State.FAILED, "failed"), (State.CANCELLED, "was cancelled")])
    def test_otherwise_it_is_cancelled_with_the_reason(self, state: State, how: str) -> None:
        after = lifecycle.follow(self.waiting, task(state), NOW)
        assert (after.state, after.finished_at, after.run_at) == (State.CANCELLED, NOW, None)
        assert (after.reason, after.cause) == (f"greet (1), which comes before it, {how}", "1")

    def test_the_cause_is_the_first_that_ended(self) -> None:
        assert lifecycle.follow(self.waiting, task(State.CANCELLED, cause="0"), NOW).cause == "0"


class TestBeforeAnAttempt:
    def test_publishing_queues(self) -> None:
        held = lifecycle.store(new(held=True), None, NOW)
        assert lifecycle.publish(held, NOW) == replace(held, state=State.QUEUED, run_at=None)

    def test_publishing_may_schedule(self) -> None:
        held = lifecycle.store(new(held=True, wait=SOON), None, NOW)
        published = lifecycle.publish(held, NOW, NOW + SOON)
        assert (published.state, published.run_at) == (State.SCHEDULED, NOW + SOON)
        assert lifecycle.publish(held, NOW + SOON, NOW + SOON).state is State.QUEUED

    def test_holding_counts_from_now(self) -> None:
        held = lifecycle.store(new(held=True), None, NOW)
        assert lifecycle.publish(held, NOW + SOON, HOLD) == replace(held, run_at=NOW + SOON + HOLD)

    def test_a_task_is_due_at_its_instant(self) -> None:
        scheduled = task(State.SCHEDULED, run_at=NOW)
        assert lifecycle.due(scheduled, NOW - timedelta(microseconds=1)) == scheduled
        assert lifecycle.due(scheduled, NOW) == replace(scheduled, state=State.QUEUED, run_at=None)

    @pytest.mark.parametrize("state", [state for state in State if state is not State.SCHEDULED])
    def test_only_scheduled_tasks_become_due(self, state: State) -> None:
        assert lifecycle.due(task(state, run_at=NOW), NOW) == task(state, run_at=NOW)

    def test_a_claim_counts_the_attempt_and_sets_the_lease(self) -> None:
        queued = task(attempt=2, worker="old", progress=Progress(done=1), failed=1, suspect=True)
        assert lifecycle.claim(queued, "w", LEASE, NOW) == replace(
            queued,
            state=State.RUNNING,
            attempt=3,
            worker="w",
            lease_until=NOW + LEASE,
            started_at=NOW,
            progress=None,
        )


class TestSettling:
    def test_a_success_keeps_the_result(self) -> None:
        settled = settle(running(failed=1, crashed=2, suspect=True), Succeeded("5"))
        assert settled == Settled(lease=Lease("1", 1), state=State.SUCCEEDED, result="5", failed=1, crashed=2)

    def test_a_cancel_keeps_the_reason(self) -> None:
        settled = settle(running(failed=1), Cancelled("no"))
        assert settled == Settled(lease=Lease("1", 1), state=State.CANCELLED, reason="no", failed=1)

    def test_a_snooze_charges_nothing(self) -> None:
        settled = settle(running(failed=1, crashed=1, suspect=True), Snoozed(SOON))
        assert settled == Settled(lease=Lease("1", 1), state=State.SCHEDULED, wait=SOON, failed=1, crashed=1)

    def test_what_was_claimed_and_given_back_untried_stays_a_suspect(self) -> None:
        """As one that waited for a slot, or when its worker drained: it has not survived anything."""
        claimed = running(failed=1, crashed=2, suspect=True, losses=4)
        settled = settle(claimed, Snoozed(timedelta(), called=False))
        assert (settled.suspect, settled.losses, settled.crashed) == (True, 4, 2)
        assert finish(claimed, Snoozed(timedelta(), called=False)).suspect
        assert not finish(claimed, Snoozed(timedelta())).suspect

    def test_a_release_charges_nothing_and_clears_no_suspicion(self) -> None:
        settled = settle(running(failed=1, crashed=1, suspect=True), Released())
        failure = Failure(attempt=1, at=NOW, worker="w", kind=FailureKind.RELEASED, message="the worker shut down")
        assert settled == Settled(
            lease=Lease("1", 1), state=State.QUEUED, failed=1, crashed=1, suspect=True, failure=failure
        )

    def test_what_could_not_begin_waits_and_nothing_is_charged(self) -> None:
        settled = settle(running(failed=1, rerun_after_crash=False), Released("short", begun=False, wait=SOON))
        assert (settled.state, settled.wait, settled.failed) == (State.SCHEDULED, SOON, 1)
        assert settled.failure is not None
        assert settled.failure.message == "short"

    def test_a_failure_is_recorded_as_text(self) -> None:
        raised = Raised(error=KeyError("x"), kind=FailureKind.REFUSED, traceback="Traceback")
        settled = settle(running(crashed=1, suspect=True), raised)
        assert settled == Settled(
            lease=Lease("1", 1),
            state=State.FAILED,
            failed=1,
            crashed=1,
            failure=Failure(
                attempt=1,
                at=NOW,
                worker="w",
                kind=FailureKind.REFUSED,
                type="KeyError",
                message="'x'",
                traceback="Traceback",
            ),
        )

    def test_a_long_failure_is_shortened(self) -> None:
        failure = settle(running(), Raised(error=ValueError("x" * 10**6), traceback="y" * 10**6)).failure
        assert failure is not None
        assert max(len(failure.message), len(failure.traceback)) <= TEXT_LIMIT

    @pytest.mark.parametrize(("failed", "state"), [(0, State.SCHEDULED), (2, State.SCHEDULED), (3, State.FAILED)])
    def test_so_many_additional_runs_are_made(self, failed: int, state: State) -> None:
        settled = settle(running(failed=failed), Raised(error=ValueError()), Retry(3))
        assert (settled.state, settled.failed) == (state, failed + 1)

    def test_a_retry_waits_longer_each_time(self) -> None:
        retry = Retry(9, wait=1, factor=2)
        waits = [settle(running(failed=failed), Raised(error=ValueError()), retry).wait for failed in range(3)]
        assert waits == [timedelta(seconds=seconds) for seconds in (1, 2, 4)]

    @pytest.mark.parametrize("delay", [timedelta(), SOON])
    def test_the_function_may_say_how_long_to_wait(self, delay: timedelta) -> None:
        assert settle(running(), Raised(error=ValueError(), delay=delay), Retry(1, wait=99)).wait == delay

    def test_a_final_failure_does_not_wait(self) -> None:
        assert settle(running(), Raised(error=ValueError(), delay=SOON), Retry(0)).wait == timedelta()

    def test_only_what_the_retry_covers_runs_again(self) -> None:
        retry = Retry(9, never=(ValueError,))
        assert settle(running(), Raised(error=ValueError()), retry).state is State.FAILED
        assert settle(running(), Raised(error=KeyError()), retry).state is State.SCHEDULED

    @pytest.mark.parametrize(
        ("kind", "rerun", "state"),
        [
            (FailureKind.CRASHED, True, State.SCHEDULED),
            (FailureKind.CRASHED, False, State.FAILED),
            (FailureKind.RAISED, False, State.SCHEDULED),
        ],
    )
    def test_the_death_of_its_process_is_a_failure_and_a_crash(
        self, kind: FailureKind, rerun: bool, state: State
    ) -> None:
        raised = Raised(error=RuntimeError(), kind=kind)
        settled = settle(running(rerun_after_crash=rerun), raised, Retry(1))
        assert (settled.state, settled.failed, settled.crashed, settled.suspect) == (state, 1, 0, False)


class TestLosing:
    def test_the_first_crash_makes_a_suspect(self) -> None:
        settled = settling.lose(running(failed=1), now=NOW)
        assert (settled.state, settled.wait, settled.lost) == (State.SCHEDULED, timedelta(), True)
        assert (settled.crashed, settled.suspect, settled.failed) == (0, True, 1)
        assert settled.failure is not None
        assert (settled.failure.kind, settled.failure.worker) == (FailureKind.CRASHED, "w")

    def test_a_crash_as_the_suspect_counts(self) -> None:
        settled = settling.lose(running(suspect=True, worker=None), now=NOW)
        assert (settled.state, settled.crashed) == (State.SCHEDULED, 1)

    def test_the_last_crash_fails_the_task(self) -> None:
        settled = settling.lose(running(suspect=True, crashed=MOST_CRASHES - 1), now=NOW)
        assert (settled.state, settled.crashed) == (State.FAILED, MOST_CRASHES)

    def test_crashes_of_which_others_are_suspected_do_not_fail_it(self) -> None:
        settled = settling.lose(running(crashed=MOST_CRASHES - 1), now=NOW)
        assert (settled.state, settled.crashed) == (State.SCHEDULED, MOST_CRASHES - 1)


class TestLeavingBehind:
    """Of a worker that shut down in good order, and whose process has ended since."""

    def test_it_is_no_crash(self) -> None:
        settled = settling.left_behind(running(failed=1, crashed=1, suspect=True), now=NOW)
        assert (settled.state, settled.failed, settled.crashed, settled.suspect) == (State.QUEUED, 1, 1, True)
        assert settled.failure is not None
        assert (settled.failure.kind, settled.failure.worker) == (FailureKind.RELEASED, "w")

    def test_what_must_not_run_twice_fails(self) -> None:
        settled = settling.left_behind(running(rerun_after_crash=False, worker=None), now=NOW)
        assert settled.state is State.FAILED

    def test_a_lease_that_was_renewed_meanwhile_refuses_it(self) -> None:
        task = running()
        assert task.lease_until is not None
        assert lifecycle.finish(task, settling.left_behind(task, now=NOW), task.lease_until - SOON / 100) is None


class TestFinishing:
    @pytest.mark.parametrize("state", NOT_RUNNING)
    def test_what_does_not_run_cannot_end(self, state: State) -> None:
        settled = settle(running(), Succeeded())
        assert lifecycle.finish(task(state, attempt=1), settled, NOW) is None

    @pytest.mark.parametrize("attempt", [0, 2])
    def test_another_attempt_is_refused(self, attempt: int) -> None:
        settled = settle(running(attempt=attempt), Succeeded())
        assert lifecycle.finish(running(), settled, NOW) is None

    def test_a_loss_is_refused_while_the_lease_holds(self) -> None:
        lost = settling.lose(running(), now=NOW)
        assert lifecycle.finish(running(), lost, NOW + LEASE - timedelta(microseconds=1)) is None
        assert lifecycle.finish(running(), lost, NOW + LEASE) is not None

    def test_a_task_without_a_lease_can_be_lost(self) -> None:
        lost = settling.lose(running(), now=NOW)
        assert lifecycle.finish(running(lease_until=None), lost, NOW) is not None

    def test_a_success_ends_the_lease(self) -> None:
        before = running(suspect=True, cancel_requested="too late", progress=Progress(done=2))
        assert finish(before, Succeeded("5"), now=NOW + SOON) == replace(
            before,
            state=State.SUCCEEDED,
            result="5",
            finished_at=NOW + SOON,
            lease_until=None,
            suspect=False,
            cancel_requested=None,
        )

    def test_a_failure_is_added_to_the_others(self) -> None:
        failed = finish(running(failures=(FAILURE,), attempt=2), Raised(error=ValueError("no")))
        assert [failure.attempt for failure in failed.failures] == [1, 2]
        assert (failed.state, failed.finished_at, failed.failed) == (State.FAILED, NOW, 1)

    def test_a_retry_waits_by_the_engine_s_clock(self) -> None:
        retried = finish(running(), Raised(error=ValueError(), delay=SOON), Retry(1), now=NOW + LEASE)
        assert (retried.state, retried.run_at) == (State.SCHEDULED, NOW + LEASE + SOON)
        assert (retried.finished_at, retried.lease_until, retried.failed) == (None, None, 1)

    @pytest.mark.parametrize("outcome", [Released(), Snoozed(timedelta())])
    def test_without_a_wait_it_is_queued(self, outcome: Outcome) -> None:
        queued = finish(running(), outcome)
        assert (queued.state, queued.run_at) == (State.QUEUED, None)

    @pytest.mark.parametrize("outcome", [Released(), Snoozed(SOON), Raised(error=ValueError(), delay=SOON)])
    def test_a_cancel_beats_another_attempt(self, outcome: Outcome) -> None:
        cancelled = finish(running(cancel_requested="not wanted"), outcome, Retry(1))
        assert (cancelled.state, cancelled.reason, cancelled.finished_at) == (State.CANCELLED, "not wanted", NOW)
        assert (cancelled.run_at, cancelled.lease_until, cancelled.cancel_requested) == (None, None, None)

    def test_a_failure_beats_a_cancel(self) -> None:
        failed = finish(running(cancel_requested="too late"), Raised(error=ValueError()))
        assert (failed.state, failed.reason) == (State.FAILED, None)

    def test_a_lost_task_is_a_suspect_until_it_fails(self) -> None:
        for crashed, suspect in ((0, True), (MOST_CRASHES - 1, False)):
            before = running(suspect=True, crashed=crashed, lease_until=NOW)
            after = lifecycle.finish(before, settling.lose(before, now=NOW), NOW)
            assert after is not None
            assert after.suspect is suspect


class TestByHand:
    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
    def test_what_has_finished_cannot_be_cancelled(self, state: State) -> None:
        assert lifecycle.cancel(task(state), "no", NOW) == task(state)

    def test_what_runs_is_asked_to_stop(self) -> None:
        assert lifecycle.cancel(running(), "no", NOW) == running(cancel_requested="no")

    @pytest.mark.parametrize("state", [State.WAITING, State.SCHEDULED, State.QUEUED])
    def test_what_does_not_run_is_cancelled(self, state: State) -> None:
        cancelled = lifecycle.cancel(task(state, run_at=NOW), "no", NOW)
        assert cancelled == task(State.CANCELLED, reason="no", finished_at=NOW)

    @pytest.mark.parametrize(
        ("change", "state"),
        [(lambda task: lifecycle.requeue(task, NOW), State.QUEUED), (lifecycle.revive, State.WAITING)],
    )
    def test_a_task_that_comes_back_starts_afresh_and_keeps_its_history(self, change: Any, state: State) -> None:
        finished = task(
            State.CANCELLED,
            attempt=4,
            failed=2,
            crashed=3,
            suspect=True,
            run_at=NOW,
            worker="w",
            started_at=NOW,
            finished_at=NOW,
            cancel_requested="no",
            reason="no",
            cause="0",
            progress=Progress(done=1),
            result="5",
            failures=(FAILURE,),
        )
        expected = task(state, attempt=4, worker="w", started_at=NOW, failures=(FAILURE,))
        assert change(finished) == expected

    def test_only_what_was_cancelled_for_another_comes_back_with_it(self) -> None:
        assert lifecycle.cancelled_for_another(task(State.CANCELLED, cause="0"))
        assert not lifecycle.cancelled_for_another(task(State.CANCELLED))
        assert not lifecycle.cancelled_for_another(task(State.SUCCEEDED, cause="0"))
