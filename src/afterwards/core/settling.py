"""How an attempt ends: its outcome, or the loss of its worker, and the decision what becomes of the task."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from afterwards.core.fast_frozen import draft_of, frozen
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.task import Failure, FailureKind, Lease, LogLine, NewTask, State, Task
from afterwards.core.text import said_by, shortened, type_name

MOST_CRASHES = 3
"""A task that has crashed this often as the suspect ends in ``failed``."""

SUSPECTED_AFTER = 2
"""Consecutive losses after which a task that was lost together with others becomes a suspect."""

NOW = timedelta()


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned; ``result`` is JSON, or None for nothing."""

    result: str | None = None


SUCCEEDED = Succeeded()
"""The most common outcome: success without a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The function raised, took too long, or could not be called."""

    error: BaseException
    kind: FailureKind = FailureKind.RAISED
    traceback: str = ""
    delay: timedelta | None = None  # the wait before the next attempt, if the function asked for one
    final: bool = False  # the function still runs, and a next attempt would run beside it


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The function asked to run again later, or was not called at all, so that nothing new is known about it."""

    delay: timedelta
    called: bool = True


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt ended because somebody, or the function itself, asked for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gave the task back before it ended. Nothing is counted against the task."""

    reason: str = "the worker shut down"
    begun: bool = True  # the function may have done something
    wait: timedelta = timedelta()  # until it may be claimed again


@dataclass(frozen=True, slots=True)
class SetAside:
    """This code cannot read the task. It waits for code that can, and nothing is counted against it."""

    reason: str


Outcome = Succeeded | Raised | Snoozed | Cancelled | Released | SetAside


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The state of a task after an attempt. Waits are spans; the engine adds them to its own clock."""

    lease: Lease
    state: State
    wait: timedelta = NOW
    failed: int = 0
    crashed: int = 0
    suspect: bool = False
    losses: int = 0
    result: str | None = None
    reason: str | None = None
    set_aside: str | None = None
    failure: Failure | None = None
    progress: Progress | None = None  # the last one; None leaves the stored one
    lost: bool = False  # decided by another worker: applies only while the lease is still expired
    begun: bool = True  # the function may have done something
    logs: tuple[LogLine, ...] = ()  # what the attempt logged, oldest first
    then: NewTask | None = None  # stored in the same transaction, unless the lease is refused; has no `max_queued`


_Draft = draft_of(Settled)


def settle(task: Task, outcome: Outcome, retry: Retry, *, worker: str, now: datetime, random: float) -> Settled:
    """Decide whether an attempt ends its task or leaves it for another attempt."""
    if isinstance(outcome, Succeeded):
        return succeed(task, outcome)
    settled = partial(Settled, lease=task.lease, failed=task.failed, crashed=task.crashed)
    match outcome:
        case Cancelled(reason):
            return settled(state=State.CANCELLED, reason=shortened(reason))
        case Snoozed(delay, called):
            suspect, losses = (False, 0) if called else (task.suspect, task.losses)
            return settled(state=State.SCHEDULED, wait=delay, suspect=suspect, losses=losses, begun=called)
        case Released(reason, begun, wait):
            failure = _failure(task, worker, now, FailureKind.RELEASED, shortened(reason))
            if begun and not task.rerun_after_crash:
                return settled(state=State.FAILED, failure=failure)
            state = State.SCHEDULED if wait > NOW else State.QUEUED
            same = partial(settled, suspect=task.suspect, losses=task.losses, begun=begun)
            return same(state=state, wait=wait, failure=failure)
        case SetAside(reason):
            same = partial(settled, suspect=task.suspect, losses=task.losses, begun=False)
            return same(state=State.QUEUED, set_aside=shortened(reason))
        case Raised():  # pragma: no branch (there is no other outcome)
            return _raised(task, outcome, retry, worker=worker, now=now, random=random)


def succeed(task: Task, outcome: Succeeded) -> Settled:
    """Return what ``settle`` returns for a success, the most common outcome."""
    draft = _Draft(
        lease=task.lease, state=State.SUCCEEDED, failed=task.failed, crashed=task.crashed, result=outcome.result
    )
    return frozen(draft, Settled)


def lose(task: Task, *, beside: Collection[Task] = (), now: datetime) -> Settled:
    """Settle a task whose worker died or let the lease run out. ``beside`` are the tasks that were lost with it.

    Tasks that were lost together are rescheduled together. A task that was lost alone, or twice in a row, is a suspect.
    The crash of a suspect counts, unless a task that had been lost before ran beside it: then that one may have caused
    it.
    """
    losses = task.losses + 1
    may_be_another = any(other.losses for other in beside)
    crashed = task.crashed + (task.suspect and not may_be_another)
    ends = crashed >= MOST_CRASHES or not task.rerun_after_crash
    failure = _failure(
        task, task.worker or "", now, FailureKind.CRASHED, "the worker died, or stopped renewing the lease"
    )
    return Settled(
        lease=task.lease,
        state=State.FAILED if ends else State.SCHEDULED,
        failed=task.failed,
        crashed=crashed,
        suspect=task.suspect or not beside or losses >= SUSPECTED_AFTER,
        losses=losses,
        failure=failure,
        lost=True,
    )


def lose_all(tasks: Sequence[Task], *, now: datetime) -> list[Settled]:
    """Settle lost tasks, each beside the others of its worker."""
    by_worker: dict[str | None, list[Task]] = {}
    for task in tasks:
        by_worker.setdefault(task.worker, []).append(task)
    return [
        lose(task, beside=[other for other in by_worker[task.worker] if other is not task], now=now) for task in tasks
    ]


def left_behind(task: Task, *, now: datetime) -> Settled:
    """Settle a task that nobody could stop when its worker shut down, after that process has ended."""
    released = Released("the worker shut down, and its process has ended")
    settled = settle(task, released, Retry(), worker=task.worker or "", now=now, random=0.0)
    return replace(settled, lost=True)


def _raised(task: Task, raised: Raised, retry: Retry, *, worker: str, now: datetime, random: float) -> Settled:
    failed = task.failed + 1
    undecided = raised.kind is FailureKind.CRASHED and not task.rerun_after_crash  # it may have done its work
    again = failed <= retry.times and not (undecided or raised.final) and retry.covers(raised.error)
    wait = raised.delay if raised.delay is not None else retry.delay(failed, random)
    return Settled(
        lease=task.lease,
        state=State.SCHEDULED if again else State.FAILED,
        wait=wait if again else NOW,
        failed=failed,
        crashed=task.crashed,
        failure=Failure(
            attempt=task.attempt,
            at=now,
            worker=worker,
            kind=raised.kind,
            type=shortened(type_name(raised.error)),
            message=said_by(raised.error),
            traceback=shortened(raised.traceback),
        ),
    )


def _failure(task: Task, worker: str, now: datetime, kind: FailureKind, message: str) -> Failure:
    return Failure(attempt=task.attempt, at=now, worker=worker, kind=kind, message=message)
