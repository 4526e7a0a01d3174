"""Recover the readable part of a row that cannot be read."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from afterwards.core.progress import stored_progress
from afterwards.core.task import Failure, FailureKind, LogLine, State, Task
from afterwards.core.text import shortened
from afterwards.engines.sqlite import parsing, rows, shapes
from afterwards.engines.sqlite.rows import Row
from afterwards.engines.sqlite.shapes import SHAPE, UnreadableRow

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES: Final = {column: place for place, column in enumerate(SHAPE)}


def task_of(row: Row, failures: tuple[Failure, ...] = (), *, texts: bool = False) -> Task:
    """Return a row of ``columns.COLUMNS`` as a task. If it cannot be read, return the readable part and the reason.

    With ``texts``, the row is also searched for text that is not UTF-8.
    """
    try:
        if texts:
            shapes.check_texts(row)
        return parsing.to_task(row, failures)
    except UnreadableRow as error:
        return _salvaged(row, str(error), failures)


def failure_of(row: Row) -> Failure:
    """Return a row of ``reading.FAILURES`` as a failure. One that cannot be read has the kind ``UNKNOWN``."""
    try:
        return parsing.to_failure(row)
    except (ValueError, TypeError, OverflowError):
        attempt, at, *texts = row
        worker, kind, type, message, traceback = map(_text, texts)
        return Failure(
            attempt=_whole(attempt),
            at=_tried(rows.to_instant, at) or EPOCH,
            worker=worker,
            kind=FailureKind.UNKNOWN,
            type=type,
            message=f"this version cannot read this failure (kind {kind!r}): {message}",
            traceback=traceback,
        )


def logs_of(attempt: Any, text: Any) -> list[LogLine]:
    """Return the lines of a row of ``reading.LOGS``, or one line that says that they cannot be read."""
    try:
        return parsing.to_logs(attempt, text)
    except (ValueError, TypeError, OverflowError, RecursionError):
        told = "this version cannot read what this attempt logged"
        return [LogLine(attempt=_whole(attempt), at=EPOCH, level="ERROR", logger="afterwards", message=told)]


def _salvaged(row: Row, reason: str, failures: tuple[Failure, ...]) -> Task:
    found = {column: row[place] for column, place in _PLACES.items()}
    instants = {
        name: _tried(rows.to_instant, found[name])
        for name in ("created_at", "run_at", "lease_until", "started_at", "finished_at", "expires_at")
    }
    state = rows.STATES.get(found["state"]) or rows.STATES.get(found["aside_from"]) or State.WAITING
    waits = state.pending or found["aside_from"] is not None
    secrets = () if found["secrets"] is None else _tried(parsing.to_secrets, found["secrets"])
    if secrets is None:  # it is not known what must not be shown
        found |= {"arguments": "", "result": None}
    return Task(
        id=_tried(rows.to_id, found["id"]) or "",
        name=_text(found["name"]),
        arguments=_text(found["arguments"]),
        created_at=instants["created_at"] or EPOCH,
        state=state,
        queue=_text(found["queue"]),
        priority=_whole(found["priority"]),
        overrides=_optional(found["overrides"]),
        retention=_tried(rows.to_span, found["retention"]) or rows.SEVEN_DAYS,
        origin=_optional(found["origin"]),
        after=_tried(rows.to_id, found["after"]),
        plain=found["plain"] == 1,
        attempt=_whole(found["attempt"]),
        failed=_whole(found["failed"]),
        crashed=_whole(found["crashed"]),
        suspect=found["suspect"] == 1,
        losses=_whole(found["losses"]),
        run_at=instants["run_at"],
        worker=_optional(found["worker"]),
        lease_until=instants["lease_until"],
        started_at=instants["started_at"],
        finished_at=instants["finished_at"],
        cancel_requested=_optional(found["cancel_requested"]),
        reason=_optional(found["reason"]),
        cause=_tried(rows.to_id, found["cause"]),
        progress=_tried(stored_progress, found["progress"]),
        result=_optional(found["result"]),
        expires_at=instants["expires_at"],
        secrets=secrets or (),
        failures=failures,
        failures_left_out=_whole(found["failures_left_out"]),
        set_aside=_optional(found["set_aside"]) or (reason if waits else None),
        unreadable=reason,
    )


def _tried(read: Callable[[Any], Any], value: Any) -> Any:
    """Return the parsed value, None if it cannot be read."""
    try:
        return None if value is None else read(value)
    except (ValueError, TypeError, OverflowError, AttributeError):
        return None


def _text(value: object) -> str:
    return shortened(value if isinstance(value, str) else "" if value is None else repr(value))


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
