"""Parse rows as tasks and failures. A row that this version cannot read raises UnreadableRow."""

import json
from functools import lru_cache
from typing import Any

from afterwards.core.fast_frozen import blank, frozen
from afterwards.core.limits import UNLIMITED
from afterwards.core.progress import stored_progress
from afterwards.core.task import Failure, FailureKind, LogLine, State, Task
from afterwards.core.text import shortened
from afterwards.engines.sqlite import shapes
from afterwards.engines.sqlite.rows import (
    ATTEMPT,
    MORE,
    REFUSED,
    SEVEN_DAYS,
    STATES,
    UNREADABLE,
    Draft,
    Row,
    to_id,
    to_instant,
    to_span,
)
from afterwards.engines.sqlite.shapes import LATEST, UnreadableRow

_STATE, _AFTER, _SUSPECT, _RUN_AT, _LEASE_UNTIL, _PROGRESS, _ASIDE_FROM, _SECRETS = 4, 10, 15, 16, 18, 24, 29, 33

_UNTIL = {State.SCHEDULED: _RUN_AT, State.RUNNING: _LEASE_UNTIL}
"""The column that holds the end of a state that ends by time."""


def to_task(row: Row, failures: tuple[Failure, ...] = ()) -> Task:
    """Return a row of ``columns.COLUMNS`` as a task. Raises UnreadableRow."""
    shapes.check(row)
    try:
        return _to_task(row, failures)
    except OverflowError:
        raise UnreadableRow("an instant or a span in it is out of range") from None


def _to_task(row: Row, failures: tuple[Failure, ...]) -> Task:
    state = STATES.get(row[_STATE]) or _state_aside(row)
    if len(row[0]) != 16:
        raise UnreadableRow("its id is not a UUID")
    if row[_SUSPECT] not in (0, 1):
        raise UnreadableRow("its column suspect is neither 0 nor 1")
    draft = blank(Draft)
    draft.id = to_id(row[0])
    draft.name = row[1]
    draft.arguments = row[2]
    draft.created_at = to_instant(row[3])
    draft.state = state
    draft.queue = row[5]
    draft.priority = row[6]
    draft.overrides = row[7]
    draft.retention = SEVEN_DAYS if row[8] is None else to_span(row[8])
    draft.origin = row[9]
    draft.after = row[10] and to_id(row[10])
    draft.plain = row[11] == 1
    draft.attempt = row[ATTEMPT]
    draft.failed = row[13]
    draft.crashed = row[14]
    draft.suspect = row[_SUSPECT] == 1
    draft.run_at = None if row[16] is None else to_instant(row[16])
    draft.worker = row[17]
    draft.lease_until = None if row[18] is None else to_instant(row[18])
    draft.started_at = None if row[19] is None else to_instant(row[19])
    draft.finished_at = None if row[20] is None else to_instant(row[20])
    draft.cancel_requested = row[21]
    draft.reason = row[22]
    draft.cause = row[23] and to_id(row[23])
    draft.progress = row[_PROGRESS] and stored_progress(row[_PROGRESS])
    draft.result = row[25]
    draft.expires_at = None if row[26] is None else to_instant(row[26])
    draft.losses = row[28]
    draft.failures = failures
    draft.logs = ()
    draft.set_aside = row[30]
    draft.failures_left_out = row[31]
    draft.secrets = () if row[_SECRETS] is None else to_secrets(row[_SECRETS])
    draft.unreadable = draft.unique_key = draft.idempotency_key = draft.context = None
    draft.limit_key, draft.rerun_after_crash = UNLIMITED, True
    if row[27] is not None:
        for name, value in _more_of(row[27]).items():
            setattr(draft, name, value)
    _check_standing(row, state)
    task: Task = frozen(draft, Task)
    return task


def _state_aside(row: Row) -> State:
    """Return the state that a row had when it was set aside."""
    state = STATES.get(row[_ASIDE_FROM]) if row[_STATE] in (UNREADABLE, REFUSED) else None
    if state is None:
        raise UnreadableRow(f"this version does not know its state {shortened(row[_STATE], 100)!r}")
    return state


def _check_standing(row: Row, state: State) -> None:
    """Raise UnreadableRow for a task that would stay in its state for ever."""
    place = _UNTIL.get(state)
    if place is None:
        lost = state is State.WAITING and row[_AFTER] is None
    else:
        lost = row[place] is None or row[place] > LATEST
    if lost:
        raise UnreadableRow(f"it is {state}, and no valid value says when or after which task this ends")


def _more_of(text: str) -> dict[str, Any]:
    try:
        more = json.loads(text)
    except (ValueError, RecursionError):
        more = None
    if not isinstance(more, dict):
        raise UnreadableRow("its column more does not hold a JSON object")
    if unknown := sorted(more.keys() - MORE.keys()):
        raise UnreadableRow(f"this version does not know its {shortened(', '.join(unknown), 100)}")
    for name, value in more.items():
        if not isinstance(value, bool if name == "rerun_after_crash" else str):
            raise UnreadableRow(f"its {name} has the wrong type")
    return more


@lru_cache  # the tasks of one function have the same
def to_secrets(text: str) -> tuple[str, ...]:
    """Return the names of a task's secrets. Raises UnreadableRow."""
    try:
        secrets = json.loads(text)
    except (ValueError, RecursionError):
        secrets = None
    if not isinstance(secrets, list) or not all(isinstance(name, str) for name in secrets):
        raise UnreadableRow("its column secrets does not hold a JSON array of names")
    return tuple(secrets)


def to_failure(row: Row) -> Failure:
    """Return a row of ``reading.FAILURES`` as a failure. Raises ValueError, TypeError, OverflowError."""
    attempt, at, worker, kind, type, message, traceback = row
    if not isinstance(attempt, int) or not all(map(shapes.is_text, (worker, type, message, traceback))):
        raise TypeError("a failure with a column of the wrong type")
    return Failure(
        attempt=attempt,
        at=to_instant(at),
        worker=worker,
        kind=FailureKind(kind),
        type=type,
        message=message,
        traceback=traceback,
    )


def to_logs(attempt: int, text: str) -> list[LogLine]:
    """Return the lines of a row of ``reading.LOGS``. Raises ValueError, TypeError, OverflowError, RecursionError."""
    lines = []
    for at, *texts in json.loads(text):
        level, logger, message = map(_unicode, texts)
        lines.append(LogLine(attempt=attempt, at=to_instant(at), level=level, logger=logger, message=message))
    return lines


def _unicode(text: str) -> str:
    """Return the text without lone surrogates, which JSON can contain. Raises TypeError for anything but text."""
    return str.encode(text, errors="replace").decode()
