"""Decide what the end of tasks, or a restart, means for the tasks behind them.

Each function takes the tasks that change and the tasks behind them, at any depth, as far as the engine has loaded them,
in the order stored. It returns the tasks that change.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from afterwards.core import history, lifecycle
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, State, Task


@dataclass(frozen=True, slots=True)
class Finished:
    """The results of attempts that ended."""

    changed: Sequence[Task]
    accepted: Sequence[Settled]
    refused: Sequence[Lease]  # leases of another attempt, or of none


def finish_all(tasks: Mapping[str, Task], settled: Iterable[Settled], now: datetime) -> Finished:
    """End attempts; ``tasks`` are by id. A lease that is given twice is refused the second time."""
    changed: dict[str, Task] = {}
    accepted: list[Settled] = []
    refused: list[Lease] = []
    for one in settled:
        id = one.lease.task_id
        stored = changed.get(id) or tasks.get(id)
        after = stored and lifecycle.finish(stored, one, now)
        if after:
            changed[id] = after
            accepted.append(one)
        else:
            refused.append(one.lease)
    return Finished([*changed.values()], accepted, refused)


def late_all(tasks: Mapping[str, Task], refused: Iterable[Settled], now: datetime) -> list[Task]:
    """Return the tasks of refused ends that are to be recorded, each with that record. ``tasks`` are by id."""
    changed: dict[str, Task] = {}
    for one in refused:
        id = one.lease.task_id
        task = changed.get(id) or tasks.get(id)
        failure = task and history.late(task, one, now)
        if task and failure:
            changed[id] = history.with_failure(task, failure)
    return [*changed.values()]


def follow_all(
    ended: Mapping[str, Task | None], waiting: Iterable[Task], now: datetime, *, succeeded: Collection[str] = ()
) -> list[Task]:
    """Decide on the tasks behind those that ended, and on those behind them in turn.

    For ``succeeded``, the ids are enough. None stands for a task whose record is gone.
    """
    behind = _by_predecessor(waiting)
    changed: dict[str, Task] = {}
    for id in succeeded:
        for task in behind.get(id, ()):
            changed[task.id] = lifecycle.proceed(task, now)
    for id, before in ended.items():
        _follow(id, before, behind, changed, now)
    return [*changed.values()]


def cancel_all(tasks: Iterable[Task], waiting: Iterable[Task], reason: str, now: datetime) -> list[Task]:
    """Cancel tasks in this order, each with those behind it. Running tasks are asked to stop."""
    return _end_all(tasks, waiting, lambda task: lifecycle.cancel(task, reason, now), now)


def expire_all(tasks: Iterable[Task], waiting: Iterable[Task], now: datetime) -> list[Task]:
    """Cancel tasks that can no longer start in time, with those behind them."""
    return _end_all(
        tasks, waiting, lambda task: lifecycle.expire(task, now) if lifecycle.overdue(task, now) else task, now
    )


@dataclass(frozen=True, slots=True)
class Requeued:
    """The results of a requeue."""

    queued: Sequence[str]
    changed: Sequence[Task]  # including tasks that had been cancelled because of them


def requeue_all(tasks: Iterable[Task], cancelled: Iterable[Task], taken: Collection[str], now: datetime) -> Requeued:
    """Queue finished tasks again, and bring back the tasks that were cancelled because of them.

    ``taken`` holds the unique keys of unfinished tasks. A task that has one of these keys stays as it is.
    """
    taken = set(taken)
    behind = _by_predecessor(cancelled)
    changed: dict[str, Task] = {}
    queued = []
    for task in tasks:
        task = changed.get(task.id, task)
        if task.state.finished and not task.plain and not task.unreadable and task.unique_key not in taken:
            changed[task.id] = lifecycle.requeue(task, now)
            queued.append(task.id)
            _take_key(taken, changed[task.id])
            _revive(changed[task.id], behind, taken, changed, now)
    return Requeued(queued, [*changed.values()])


def revive_all(
    running_again: Iterable[Task], cancelled: Iterable[Task], taken: Collection[str], now: datetime
) -> list[Task]:
    """Bring back tasks that were cancelled because of tasks that run again. ``taken`` is as in ``requeue_all``.

    If this comes late, the predecessor may have ended meanwhile.
    """
    behind = _by_predecessor(cancelled)
    taken, changed = set(taken), dict[str, Task]()
    for task in running_again:
        _revive(task, behind, taken, changed, now)
    return [*changed.values()]


def bring_back_all(tasks: Iterable[Task], before: Mapping[str, Task], now: datetime) -> list[Task]:
    """Let workers start tasks that were set aside and can be read. Their predecessors may have ended meanwhile."""
    back = []
    for task in tasks:
        if task.set_aside is not None and not task.unreadable:
            task = lifecycle.bring_back(task)
            if task.state is State.WAITING:
                task = lifecycle.follow(task, before.get(task.after or ""), now)
            back.append(task)
    return back


Behind = Mapping[str, Sequence[Task]]
"""Tasks by the id of the task that they come after."""


def _by_predecessor(tasks: Iterable[Task]) -> Behind:
    behind: dict[str, list[Task]] = {}
    for task in tasks:
        if task.after is not None:
            behind.setdefault(task.after, []).append(task)
    return behind


def _end_all(tasks: Iterable[Task], waiting: Iterable[Task], end: Callable[[Task], Task], now: datetime) -> list[Task]:
    behind = _by_predecessor(waiting)
    changed: dict[str, Task] = {}
    for task in tasks:
        task = changed.get(task.id, task)
        after = end(task)
        if after is not task:
            changed[task.id] = after
            if after.state.finished:
                _follow(after.id, after, behind, changed, now)
    return [*changed.values()]


def _follow(ended: str, task: Task | None, behind: Behind, changed: dict[str, Task], now: datetime) -> None:
    """Decide on the tasks behind one that ended, and add those that change to ``changed``."""
    following = deque([(ended, task)])
    while following:
        id, before = following.popleft()
        for waiting in behind.get(id, ()):
            if changed.get(waiting.id, waiting).state is State.WAITING:
                after = lifecycle.follow(waiting, before, now)
                changed[after.id] = after
                if after.state.finished:
                    following.append((after.id, after))


def _revive(task: Task, behind: Behind, taken: set[str], changed: dict[str, Task], now: datetime) -> None:
    """Bring back the tasks that were cancelled because of a task, and add them to ``changed``."""
    reviving = deque([task])
    while reviving:
        before = reviving.popleft()
        for cancelled in behind.get(before.id, ()):
            current = changed.get(cancelled.id, cancelled)
            if lifecycle.cancelled_for_another(current) and current.unique_key not in taken:
                revived = lifecycle.follow(lifecycle.revive(current), before, now)
                changed[revived.id] = revived
                _take_key(taken, revived)
                reviving.append(revived)


def _take_key(taken: set[str], task: Task) -> None:
    if task.unique_key is not None and not task.state.finished:
        taken.add(task.unique_key)
