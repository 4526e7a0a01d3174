"""Read rows as tasks. What this version cannot read is salvaged, and the reason is in the task."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from afterwards.core.fast_frozen import blank, draft_of, frozen
from afterwards.core.progress import stored_progress
from afterwards.core.task import Failure, FailureKind, LogLine, State, Task
from afterwards.core.text import shortened
from afterwards.engines.postgres.rows import (
    EPOCH,
    LATEST,
    REFUSED,
    SEVEN_DAYS,
    TYPES,
    UNREADABLE,
    Row,
    to_instant,
    to_instant_or_none,
    to_span,
)

_STATES = {state.value: state for state in State}
_Draft = draft_of(Task)


class UnreadableRow(ValueError):
    """A row that this version cannot read. The text says why, and shows no values."""


def to_task(row: Row, failures: tuple[Failure, ...] = (), logs: tuple[LogLine, ...] = ()) -> Task:
    """Return a row of ``COLUMNS`` as a task. If it cannot be read, return the readable part and the reason."""
    try:
        return _to_task(row, failures, logs)
    except UnreadableRow as error:
        reason = str(error)
    except OverflowError:
        reason = "an instant or a span in it is out of range"
    return _salvaged(row, reason, failures, logs)


def _to_task(row: Row, failures: tuple[Failure, ...], logs: tuple[LogLine, ...]) -> Task:
    draft = blank(_Draft)
    draft.id = row[1]
    draft.name = row[2]
    draft.arguments = row[3]
    draft.created_at = to_instant(row[4])
    draft.state = state = _STATES.get(row[5]) or _state_aside(row)
    draft.queue = row[6]
    draft.priority = row[7]
    draft.overrides = row[8]
    draft.retention = SEVEN_DAYS if row[9] is None else to_span(row[9])
    draft.origin = row[10]
    draft.after = row[11]
    draft.plain = row[12]
    draft.expires_at = None if row[13] is None else to_instant(row[13])
    draft.unique_key = row[14]
    draft.idempotency_key = row[15]
    draft.limit_key = row[16]
    draft.rerun_after_crash = row[17]
    draft.context = row[18]
    draft.attempt = row[19]
    draft.failed = row[20]
    draft.crashed = row[21]
    draft.suspect = row[22]
    draft.losses = row[23]
    draft.run_at = None if row[24] is None else to_instant(row[24])
    draft.worker = row[25]
    draft.lease_until = None if row[26] is None else to_instant(row[26])
    draft.started_at = None if row[27] is None else to_instant(row[27])
    draft.finished_at = None if row[28] is None else to_instant(row[28])
    draft.cancel_requested = row[29]
    draft.reason = row[30]
    draft.cause = row[31]
    draft.progress = row[32] and stored_progress(row[32])
    draft.result = row[33]
    draft.failures_left_out = row[34]
    draft.set_aside = row[35]
    draft.secrets = _to_secrets(row[37])
    draft.failures = failures
    draft.logs = logs
    draft.unreadable = None
    _check_standing(state, row)
    task: Task = frozen(draft, Task)
    return task


def _state_aside(row: Row) -> State:
    """Return the state that a row had when it was set aside."""
    state = _STATES.get(row[36]) if row[5] in (UNREADABLE, REFUSED) else None
    if state is None:
        raise UnreadableRow(f"this version does not know its state {shortened(row[5], 100)!r}")
    return state


def _check_standing(state: State, row: Row) -> None:
    """Raise UnreadableRow for a task that would stay in its state for ever."""
    match state:
        case State.SCHEDULED:
            lost = row[24] is None or row[24] > LATEST
        case State.RUNNING:
            lost = row[26] is None or row[26] > LATEST
        case State.WAITING:
            lost = row[11] is None
        case _:
            return
    if lost:
        raise UnreadableRow(f"it is {state}, and nothing says until when")


def _to_secrets(names: str | None) -> tuple[str, ...]:
    return tuple(names.split(" ")) if names else ()


def _salvaged(row: Row, reason: str, failures: tuple[Failure, ...], logs: tuple[LogLine, ...]) -> Task:
    found = dict(zip(TYPES, row, strict=False))
    state = _STATES.get(found["state"]) or _STATES.get(found.pop("aside_from") or "") or State.WAITING
    waits = state.pending or row[36] is not None
    values = {name: value for name, value in found.items() if name not in ("seq", "state", "aside_from")}
    for name in ("created_at", "run_at", "lease_until", "started_at", "finished_at", "expires_at"):
        values[name] = _in_range(values[name])
    retention = values.pop("retention")
    return Task(
        **values
        | {
            "created_at": values["created_at"] or EPOCH,
            "state": state,
            "retention": SEVEN_DAYS if retention is None or not 0 <= retention < 2**62 else to_span(retention),
            "progress": values["progress"] and stored_progress(values["progress"]),
            "secrets": _to_secrets(values["secrets"]),
            "failures": failures,
            "logs": logs,
            "set_aside": values["set_aside"] or (reason if waits else None),
            "unreadable": reason,
        }
    )


def _in_range(microseconds: int | None) -> datetime | None:
    try:
        return to_instant_or_none(microseconds)
    except OverflowError:
        return None


def to_failure(row: Sequence[Any]) -> Failure:
    """Return a row of ``reading.FAILURES`` as a failure. One that cannot be read has the kind ``UNKNOWN``."""
    attempt, at, worker, kind, type, message, traceback = row
    try:
        return Failure(
            attempt=attempt,
            at=to_instant(at),
            worker=worker,
            kind=FailureKind(kind),
            type=type,
            message=message,
            traceback=traceback,
        )
    except (ValueError, OverflowError):
        return Failure(
            attempt=attempt,
            at=_in_range(at) or EPOCH,
            worker=worker,
            kind=FailureKind.UNKNOWN,
            type=type,
            message=f"this version cannot read this failure (kind {shortened(kind, 100)!r}): {message}",
            traceback=traceback,
        )


def to_logs(found: Sequence[Sequence[Any]]) -> tuple[LogLine, ...]:
    """Return the log lines of one task, given as the number and the lines of each attempt that logged."""
    return tuple(line for attempt, lines in found for line in _of_attempt(attempt, lines))


def _of_attempt(attempt: int, lines: str) -> list[LogLine]:
    try:
        return [
            LogLine(attempt=attempt, at=to_instant(at), level=str(level), logger=str(logger), message=str(message))
            for at, level, logger, message in json.loads(lines)
        ]
    except (ValueError, TypeError, OverflowError, RecursionError):
        unread = "this version cannot read the lines that this attempt logged"
        return [LogLine(attempt=attempt, at=EPOCH, level="WARNING", logger="afterwards", message=unread)]
