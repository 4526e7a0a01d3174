"""The history of a task, derived from its record: what happened to each attempt, oldest first, and what comes next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from afterwards.core.record import TaskRecord
from afterwards.core.task import Failure, FailureKind, LogLine, State
from afterwards.dashboard.pages.traceback_parts import TracebackPart, traceback_parts

Logs = Mapping[int, tuple[LogLine, ...]]
"""The log lines of each attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a task, or that it waits for."""

    kind: str  # selects the mark beside the title
    title: str
    at: datetime | None = None
    worker: str | None = None
    lasted: timedelta | None = None
    detail: str | None = None
    failure: Failure | None = None
    traceback: tuple[TracebackPart, ...] = ()
    logs: tuple[LogLine, ...] = ()


ENDS = {
    FailureKind.RAISED: "raised an exception",
    FailureKind.TIMED_OUT: "timed out",
    FailureKind.CRASHED: "lost its worker: its process died, or its lease ran out",
    FailureKind.RELEASED: "was given back at a shutdown: it does not count",
    FailureKind.REFUSED: "could not start",
    FailureKind.LATE: "ended after its lease was lost: its end was refused",
    FailureKind.UNKNOWN: "ended in a way that this version cannot read",
}


def timeline(record: TaskRecord) -> list[Event]:
    """Return the events of a task, in order."""
    logs = {attempt: tuple(lines) for attempt, lines in groupby(record.logs, key=lambda line: line.attempt)}
    return [
        Event(kind="added", title="Added", at=record.created_at, detail=record.origin),
        *_failures(record, logs),
        *_last_attempt(record, logs),
        *_end(record),
        *_next(record),
    ]


def _failures(record: TaskRecord, logs: Logs) -> Iterator[Event]:
    before: Failure | None = None
    for failure in record.failures:
        if record.failures_left_out and before and failure.attempt > before.attempt + 1:
            yield Event(kind="gap", title=f"{record.failures_left_out} more failures between these are not kept")
        first = before is None or failure.attempt != before.attempt  # a late end is a second entry of its attempt
        yield Event(
            kind=failure.kind.value,
            title=f"Attempt {failure.attempt} {ENDS[failure.kind]}",
            at=failure.at,
            worker=failure.worker or None,
            failure=failure,
            traceback=tuple(traceback_parts(failure.traceback)) if failure.traceback else (),
            logs=logs.get(failure.attempt, ()) if first else (),
        )
        before = failure


def _last_attempt(record: TaskRecord, logs: Logs) -> Iterator[Event]:
    """Yield the attempt that runs or succeeded, and earlier ones that left nothing but log lines: snoozed ones."""
    told = {failure.attempt for failure in record.failures}
    for attempt in sorted((logs.keys() | {record.attempt}) - told - {0}):
        last = attempt == record.attempt
        yield Event(
            kind="started",
            title=f"Attempt {attempt} started" if last else f"Attempt {attempt} ended without a failure",
            at=record.started_at if last else logs[attempt][0].at,
            worker=record.worker if last else None,
            logs=logs.get(attempt, ()),
        )


def _end(record: TaskRecord) -> Iterator[Event]:
    if record.cancel_requested is not None and record.state is State.RUNNING:
        yield Event(kind="cancelled", title="Asked to stop", detail=record.cancel_requested)
    if record.state.finished:
        title = {State.SUCCEEDED: "Succeeded", State.FAILED: "Failed for good"}.get(record.state, "Cancelled")
        yield Event(
            kind="gave_up" if record.state is State.FAILED else record.state.value,
            title=title,
            at=record.finished_at,
            lasted=_lasted(record),
            detail=record.reason,
        )


def _next(record: TaskRecord) -> Iterator[Event]:
    match record.state:
        case State.WAITING:
            yield Event(kind="next", title="Waits until the task before it has succeeded")
        case State.SCHEDULED:
            title = "Will be tried again" if record.retrying else "Will be queued"
            yield Event(kind="next", title=title, at=record.run_at)
        case State.QUEUED:
            yield Event(kind="next", title="Waits for a worker", detail=record.set_aside)


def _lasted(record: TaskRecord) -> timedelta | None:
    """Return the time from the start of the last attempt to the end of the task, if it ended by that attempt."""
    if record.started_at is None or record.finished_at is None or record.state is State.CANCELLED:
        return None
    return record.finished_at - record.started_at
