"""Tasks as rows: instants and spans are microseconds, absent values are NULL.

A set of rows goes to the server as one JSON text, whatever its size and whichever driver sends it: a statement has
``json_to_recordset(%s)``, and the columns that it takes from there.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from afterwards.core.errors import EngineError
from afterwards.core.limits import UNLIMITED
from afterwards.core.task import Failure, LogLine, State, Task

Row = tuple[Any, ...]

TYPES: Final[Mapping[str, str]] = {
    "seq": "bigint",
    "id": "uuid",
    "name": "text",
    "arguments": "text",
    "created_at": "bigint",
    "state": "text",
    "queue": "text",
    "priority": "integer",
    "overrides": "text",
    "retention": "bigint",
    "origin": "text",
    "after": "uuid",
    "plain": "boolean",
    "expires_at": "bigint",
    "unique_key": "text",
    "idempotency_key": "text",
    "limit_key": "text",
    "rerun_after_crash": "boolean",
    "context": "text",
    "attempt": "integer",
    "failed": "integer",
    "crashed": "integer",
    "suspect": "boolean",
    "losses": "integer",
    "run_at": "bigint",
    "worker": "text",
    "lease_until": "bigint",
    "started_at": "bigint",
    "finished_at": "bigint",
    "cancel_requested": "text",
    "reason": "text",
    "cause": "uuid",
    "progress": "text",
    "result": "text",
    "failures_left_out": "integer",
    "set_aside": "text",
    "aside_from": "text",
    "secrets": "text",
    "since": "bigint",
}
"""The columns of a task, and their types."""

COLUMNS = ", ".join(
    f"t.{name}::text" if type == "uuid" else f"t.{name}" for name, type in TYPES.items() if name != "since"
)
"""The columns of a task as ``to_task`` reads them, from a table that the statement calls ``t``."""

SEQ, ID, ATTEMPT = 0, 1, 19
"""Positions in such a row."""

UNREADABLE, REFUSED = "unreadable", "refused"
"""The states of rows that are set aside: this version cannot read the row, or cannot run the task in it."""

WAITING_SINCE = frozenset({State.QUEUED, State.SCHEDULED})
"""The states for which a row records since when the task has been in it."""

SEVEN_DAYS = timedelta(days=7)
"""The retention of a row that has none."""

LATEST: Final = 253_402_214_400_000_000
"""The beginning of the calendar's last day, in microseconds: later instants have no local time in some zones."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FOR_EVER = 2**62  # so that the sum of an instant and a span of 140 000 years still fits into 64 bits


def recordset(name: str, columns: Iterable[str], **others: str) -> str:
    """Return the SQL of a set of rows that comes as one JSON text, with these columns of a task and others."""
    types = {column: TYPES[column] for column in columns} | others
    return f"json_to_recordset(%s::json) AS {name} ({', '.join(f'{one} {type}' for one, type in types.items())})"


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows for a statement with ``recordset``. A value that is left out is NULL."""
    return json.dumps([*rows], ensure_ascii=False, separators=(",", ":"))


def from_instant(instant: datetime) -> int:
    return _from_utc(instant) if instant.tzinfo is UTC else (instant - EPOCH) // _MICROSECOND


# The tasks of one transaction share most of theirs. Not those of other zones: two that differ only in `fold`, an hour
# apart, are equal to a cache (PEP 495).
@lru_cache(1024)
def _from_utc(instant: datetime) -> int:
    return (instant - EPOCH) // _MICROSECOND


def instant_or_none(instant: datetime | None) -> int | None:
    return None if instant is None else from_instant(instant)


@lru_cache(1024)
def to_instant(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def to_instant_or_none(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_instant(microseconds)


@lru_cache
def from_span(span: timedelta) -> int:
    return min(span // _MICROSECOND, _FOR_EVER)


@lru_cache
def to_span(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)


def known_ids(ids: Iterable[str]) -> list[str]:
    """Return those of the ids that a row can have, each once. Text that is not a UUID names no row."""
    return [id for id in dict.fromkeys(ids) if is_uuid(id)]


def is_uuid(id: str) -> bool:
    return _UUID.fullmatch(id) is not None


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def is_storable(text: str) -> bool:
    """Return True if a column can hold this text: it has no NUL and no surrogates."""
    return _NOT_STORABLE.search(text) is None


_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def id_to_store(id: str) -> str:
    if not is_uuid(id):
        raise EngineError(f"{id!r} cannot be stored as an id: it is not a UUID")
    return id


# fmt: off
NEW: Final = (
    "id", "name", "arguments", "created_at", "state", "queue", "priority", "overrides", "retention", "origin",
    "after", "plain", "expires_at", "unique_key", "idempotency_key", "limit_key", "rerun_after_crash", "context",
    "attempt", "failed", "run_at", "worker", "lease_until", "started_at", "finished_at", "reason", "cause",
    "secrets", "since",
)
# fmt: on
"""The columns of a newly stored task. Others have their defaults."""


def from_new(task: Task, *, at_an_instant: bool = False) -> dict[str, Any]:
    """Return a newly stored task as a row for JSON."""
    created_at = from_instant(task.created_at)
    row: dict[str, Any] = {
        "id": id_to_store(task.id),
        "name": task.name,
        "arguments": task.arguments,
        "created_at": created_at,
        "state": task.state.value,
        "queue": task.queue,
        "priority": task.priority,
    }
    if task.after is not None:
        row["after"] = id_to_store(task.after)
    if task.run_at is not None:
        row["run_at"] = from_instant(task.run_at)
        if not at_an_instant:
            row["since"] = created_at
    if task.lease_until is not None and task.started_at is not None:
        row["attempt"], row["worker"] = task.attempt, task.worker
        row["lease_until"], row["started_at"] = from_instant(task.lease_until), from_instant(task.started_at)
    if task.finished_at is not None:
        row |= {"plain": task.plain, "attempt": task.attempt, "failed": task.failed, "reason": task.reason}
        row |= {"finished_at": from_instant(task.finished_at), "cause": task.cause}
    for column, absent in _RARE.items():
        if (value := getattr(task, column)) != absent:
            row[column] = _FORMS[column](value) if column in _FORMS else value
    return row


_RARE: Final[Mapping[str, object]] = {
    "retention": SEVEN_DAYS,
    "expires_at": None,
    "origin": None,
    "overrides": None,
    "unique_key": None,
    "idempotency_key": None,
    "context": None,
    "limit_key": UNLIMITED,
    "rerun_after_crash": True,
    "secrets": (),
}
"""Fields that few tasks have, and the value of each in a task without it."""

_FORMS: Final[Mapping[str, Callable[[Any], object]]] = {
    "retention": from_span,
    "expires_at": from_instant,
    "secrets": " ".join,
}


# fmt: off
CHANGING: Final = (
    "state", "attempt", "failed", "crashed", "suspect", "losses", "run_at", "worker", "lease_until", "started_at",
    "finished_at", "cancel_requested", "reason", "cause", "progress", "result", "expires_at", "aside_from",
    "set_aside", "since",
)
# fmt: on
"""The columns that ``changed`` gives, apart from the id."""


def changed(task: Task, now: int) -> dict[str, Any]:
    """Return a task's new values as a row for JSON."""
    return {
        "id": task.id,
        "state": task.state.value if task.set_aside is None else REFUSED,
        "attempt": task.attempt,
        "failed": task.failed,
        "crashed": task.crashed,
        "suspect": task.suspect,
        "losses": task.losses,
        "run_at": instant_or_none(task.run_at),
        "worker": task.worker,
        "lease_until": instant_or_none(task.lease_until),
        "started_at": instant_or_none(task.started_at),
        "finished_at": instant_or_none(task.finished_at),
        "cancel_requested": task.cancel_requested,
        "reason": task.reason,
        "cause": task.cause,
        "progress": task.progress and task.progress.to_text(),
        "result": task.result,
        "expires_at": instant_or_none(task.expires_at),
        "aside_from": None if task.set_aside is None else task.state.value,
        "set_aside": task.set_aside,
        "since": now if task.state in WAITING_SINCE else None,
    }


def from_failure(task: str, failure: Failure) -> dict[str, Any]:
    return {
        "task": task,
        "attempt": failure.attempt,
        "at": from_instant(failure.at),
        "worker": failure.worker,
        "kind": failure.kind.value,
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def from_logs(logs: Sequence[LogLine]) -> str | None:
    """Return the lines that one attempt logged as JSON, without its number; None if there are none."""
    lines = [[from_instant(line.at), line.level, line.logger, line.message] for line in logs]
    return json.dumps(lines, separators=(",", ":")) if lines else None


def as_taken(row: Row, worker: str, lease_until: int, now: int) -> Row:
    """Return a row of ``COLUMNS`` as it is once a worker has taken its task: a translation of ``lifecycle.claim``."""
    return (
        *row[:_STATE],
        State.RUNNING.value,
        *row[_STATE + 1 : ATTEMPT],
        row[ATTEMPT] + 1,
        *row[ATTEMPT + 1 : _RUN_AT],
        None,
        worker,
        lease_until,
        now,
        *row[_RUN_AT + 4 : _PROGRESS],
        None,
        *row[_PROGRESS + 1 :],
    )


_STATE, _RUN_AT, _PROGRESS = 5, 24, 32
