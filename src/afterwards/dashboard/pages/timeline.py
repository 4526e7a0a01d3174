"""The history of a task, derived from its record: what happened to each attempt, oldest first."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from afterwards.core.task import Failure, FailureKind, LogLine, State
from afterwards.dashboard.pages.traceback_parts import TracebackPart, traceback_parts
from afterwards.tasks.record import TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a task, or that will."""

    kind: str  # selects the mark beside the title
    title: str
    at: datetime | None = None
    worker: str | None = None
    lasted: timedelta | None = None
    failure: Failure | None = None
    parts: tuple[TracebackPart, ...] = ()
    logs: tuple[LogLine, ...] = ()


TITLES = {
    FailureKind.RAISED: "raised an exception",
    FailureKind.TIMED_OUT: "timed out",
    FailureKind.CRASHED: "lost its worker: the lease ran out, or the process died",
    FailureKind.RELEASED: "was given back at a shutdown, and does not count",
    FailureKind.REFUSED: "could not start",
    FailureKind.LATE: "ended after its lease was lost: its end was refused",
    FailureKind.UNKNOWN: "ended in a way that this version cannot read",
}


def timeline(record: TaskRecord) -> list[Event]:
    """Return what the record tells, and at the end what the task waits for."""
    logs: defaultdict[int, list[LogLine]] = defaultdict(list)
    for line in record.logs:
        logs[line.attempt].append(line)
    events = [Event(kind="added", title="Added", at=record.created_at)]
    events += _failures(record, logs)
    events += _last_attempt(record, logs)
    events += _end(record)
    return events


def _failures(record: TaskRecord, logs: dict[int, list[LogLine]]) -> Iterator[Event]:
    last = 0
    for failure in record.failures:
        if record.failures_left_out and failure.attempt > last + 1 and last:
            yield Event(kind="gap", title=f"{record.failures_left_out} more failures, which are not kept")
        last = failure.attempt
        yield Event(
            kind=failure.kind.value,
            title=f"Attempt {failure.attempt} {TITLES[failure.kind]}",
            at=failure.at,
            worker=failure.worker or None,
            failure=failure,
            parts=tuple(traceback_parts(failure.traceback)) if failure.traceback else (),
            logs=tuple(logs.pop(failure.attempt, ())),
        )
