"""The rules that hold for every record after every step."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from afterwards.core.limits import Group, Limit, Rate, group_of
from afterwards.core.task import FIRST_FAILURES, FailureKind, State, Task

SECOND = timedelta(seconds=1)
LIMITS = {"thank": Limit(max_concurrency=2, rate=Rate(3, 30 * SECOND))}


def check_limits(tasks: Collection[Task], starts: dict[Group, list[datetime]]) -> None:
    """Check that no limit is exceeded at any instant, and no rate within any span."""
    running = Counter(group_of(task.name, task.limit_key, LIMITS) for task in tasks if task.state is State.RUNNING)
    for name, limit in LIMITS.items():
        assert limit.max_concurrency is not None and limit.rate is not None
        assert all(count <= limit.max_concurrency for group, count in running.items() if group[0] == name)
        for group in (group for group in starts if group[0] == name):
            for first, last in zip(starts[group], starts[group][limit.rate.count :], strict=False):
                assert last - first >= limit.rate.per


def check_uniqueness(tasks: Collection[Task]) -> None:
    assert _no_two(task.unique_key for task in tasks if not task.state.finished)
    assert _no_two(task.idempotency_key for task in tasks)


def _no_two(keys: Iterable[str | None]) -> bool:
    return max(Counter(key for key in keys if key is not None).values(), default=0) < 2


def check_record(task: Task, tasks: dict[str, Task]) -> None:
    """Check what holds for every record at every time."""
    assert (task.state is State.RUNNING) == (task.lease_until is not None)
    assert task.state.finished == (task.finished_at is not None)
    assert (task.state is State.CANCELLED) == (task.reason is not None)
    assert task.state is not State.SCHEDULED or task.run_at is not None
    assert task.state in (State.SCHEDULED, State.WAITING) or task.run_at is None
    assert task.state is State.RUNNING or task.cancel_requested is None
    assert task.state is State.CANCELLED or task.cause is None
    assert task.state is State.QUEUED or task.set_aside is None
    assert task.state is not State.WAITING or not tasks[task.after or ""].state.finished
    attempts = [failure.attempt for failure in task.failures if failure.kind is not FailureKind.LATE]
    assert attempts == sorted(set(attempts)) and len(attempts) <= task.attempt


def check_change(old: Task, new: Task, *, by_hand: bool) -> None:
    """Check what holds from one step to the next."""
    assert old.attempt <= new.attempt <= old.attempt + 1
    assert new.failures[: min(len(old.failures), FIRST_FAILURES)] == old.failures[:FIRST_FAILURES]
    assert new.failures_left_out >= old.failures_left_out
    assert by_hand or not old.state.finished or replace(new, failures=old.failures) == old
