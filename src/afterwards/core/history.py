"""The failures and the log lines that a task keeps of its attempts, as pure functions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from afterwards.core.settling import Settled
from afterwards.core.task import (
    FIRST_FAILURES,
    LAST_FAILURES,
    LOGGED_ATTEMPTS,
    Failure,
    FailureKind,
    LogLine,
    Task,
)


def with_failure(task: Task, failure: Failure | None) -> Task:
    """Return the task with one more recorded failure. Of many failures, the first and the last ones are kept."""
    if failure is None:
        return task
    kept = (*task.failures, failure)
    surplus = len(kept) - FIRST_FAILURES - LAST_FAILURES
    if surplus <= 0:
        return replace(task, failures=kept)
    return replace(
        task,
        failures=kept[:FIRST_FAILURES] + kept[-LAST_FAILURES:],
        failures_left_out=task.failures_left_out + surplus,
    )


def with_logs(task: Task, logs: Sequence[LogLine]) -> Task:
    """Return the task with the lines that one more attempt logged. Only those of the last attempts are kept."""
    if not logs:
        return task
    lines = (*task.logs, *logs)
    kept = sorted({line.attempt for line in lines})[-LOGGED_ATTEMPTS:]
    return replace(task, logs=tuple(line for line in lines if line.attempt >= kept[0]))


def late(task: Task, settled: Settled, now: datetime) -> Failure | None:
    """Return the record of a refused end, None if it needs none.

    It needs one if the attempt had begun and was recorded as crashed meanwhile. Any other refused end was stored
    before, by a call that was repeated because its answer was lost. So was that of an attempt whose worker says itself
    that it crashed.
    """
    kinds = {failure.kind: failure for failure in task.failures if failure.attempt == settled.lease.attempt}
    is_crash = settled.failure is not None and settled.failure.kind is FailureKind.CRASHED
    if FailureKind.CRASHED not in kinds or FailureKind.LATE in kinds or settled.lost or is_crash or not settled.begun:
        return None
    return Failure(
        attempt=settled.lease.attempt,
        at=now,
        worker=kinds[FailureKind.CRASHED].worker,
        kind=FailureKind.LATE,
        message=f"it ended after its lease was lost ({settled.state}), so this end is not stored",
    )
