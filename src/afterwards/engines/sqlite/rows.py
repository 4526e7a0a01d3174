"""Tasks as rows: instants and spans are microseconds, ids are 16 bytes, absent values are NULL."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from afterwards.core.errors import EngineError
from afterwards.core.fast_frozen import draft_of
from afterwards.core.limits import UNLIMITED
from afterwards.core.task import Failure, LogLine, State, Task
from afterwards.core.text import is_unicode

Row = tuple[Any, ...]

_ALWAYS = ("id", "name", "arguments", "created_at", "state", "queue", "priority")
_LEASED = ("attempt", "worker", "lease_until", "started_at")
_FINISHED = ("plain", "attempt", "failed", "finished_at", "reason", "cause")

WAITING_SINCE = frozenset({State.QUEUED, State.SCHEDULED})
"""The states for which a row records since when the task has been in it."""

ATTEMPT = 12
"""The position of the number of attempts in a row of ``columns.COLUMNS``."""

UNREADABLE, REFUSED = "unreadable", "refused"
"""The states of rows that are set aside: this version cannot read the row, or cannot run the task in it."""

SEVEN_DAYS = timedelta(days=7)
"""The retention of a row that has none."""

Draft = draft_of(Task)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FOR_EVER = 2**62  # so that the sum of an instant and a span of 140 000 years still fits into 64 bits
STATES = {state.value: state for state in State}


def from_instant(instant: datetime) -> int:
    return _from_utc(instant) if instant.tzinfo is UTC else (instant - _EPOCH) // _MICROSECOND


# The tasks of one transaction share most of theirs. Not those of other zones: two that differ only in `fold`, an hour
# apart, are equal to a cache (PEP 495).
@lru_cache(1024)
def _from_utc(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


@lru_cache(1024)  # the tasks of one claim, and often those of one request, share their instants
def to_instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def instant_or(microseconds: object, otherwise: datetime) -> datetime:
    """Return an instant that decides nothing, or ``otherwise`` if it is damaged."""
    try:
        return to_instant(microseconds) if isinstance(microseconds, int) else otherwise
    except OverflowError:
        return otherwise


@lru_cache
def from_span(span: timedelta) -> int:
    return min(span // _MICROSECOND, _FOR_EVER)


@lru_cache
def to_span(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)


def key(id: str) -> bytearray:
    """Return the id as it is stored. Text that is not a UUID gives a key that no row has.

    It is a bytearray: sqlite3 looks for an adapter before it binds bytes, which takes three times as long.
    """
    try:
        return bytearray.fromhex(id.replace("-", ""))
    except ValueError:
        return bytearray()


def key_to_store(id: str) -> bytearray:
    found = key(id)
    if len(found) != 16:
        raise EngineError(f"{id!r} cannot be stored as the id of a task: it is not a UUID")
    return found


def raw(key: Any) -> Any:
    """Return a key that was read from a row in the form in which it can be looked up."""
    return bytearray(key) if isinstance(key, bytes) else key


def all_raw(keys: Iterable[Any]) -> list[Any]:
    """Return the keys of several rows as ``raw`` does. Text that is not UTF-8 cannot be looked up and is left out."""
    return [raw(key) for key in keys if not isinstance(key, str) or is_unicode(key)]


def to_id(key: bytes) -> str:
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def from_new(task: Task, *, at_an_instant: bool = False) -> tuple[tuple[str, ...], list[Any]]:
    """Return the columns of a newly stored task that have a value, and their values."""
    columns: tuple[str, ...] = _ALWAYS
    values = [
        key_to_store(task.id),
        task.name,
        task.arguments,
        from_instant(task.created_at),
        task.state.value,
        task.queue,
        task.priority,
    ]
    if task.retention != SEVEN_DAYS:
        columns += ("retention",)
        values.append(from_span(task.retention))
    if task.origin is not None:
        columns += ("origin",)
        values.append(task.origin)
    if task.after is not None:
        columns += ("after",)
        values.append(key_to_store(task.after))
    if task.run_at is not None:
        columns += ("run_at",)
        values.append(from_instant(task.run_at))
        if not at_an_instant:
            columns += ("queued_at",)
            values.append(from_instant(task.created_at))
    if has_more(task):
        for column, value in _more(task):
            columns += (column,)
            values.append(value)
    if task.lease_until is not None and task.started_at is not None:
        columns += _LEASED
        values += [task.attempt, task.worker, from_instant(task.lease_until), from_instant(task.started_at)]
    if task.finished_at is not None:
        columns += _FINISHED
        cause = task.cause and key(task.cause)
        values += [task.plain, task.attempt, task.failed, from_instant(task.finished_at), task.reason, cause]
    return columns, values


MOVED = (
    *("seq", "id", "name", "arguments", "created_at", "queue", "priority", "overrides", "retention", "origin", "after"),
    *("plain", "unique_key", "idempotency_key", "limit_key", "more", "failures_left_out", "secrets"),
    *("state", "attempt", "failed", "crashed", "suspect", "losses", "run_at", "worker", "lease_until", "started_at"),
    *("finished_at", "cancel_requested", "reason", "cause", "progress", "result", "expires_at", "aside_from"),
    *("set_aside", "queued_at"),
)
"""The columns of ``from_moved``: all."""


def from_moved(task: Task, since: datetime | None, seq: int) -> Row:
    """Return the row of a task that came from another engine. ``since`` is when its state began, as far as known."""
    more = dict(_more(task))
    return (
        seq,
        key_to_store(task.id),
        task.name,
        task.arguments,
        from_instant(task.created_at),
        task.queue,
        task.priority,
        task.overrides,
        None if task.retention == SEVEN_DAYS else from_span(task.retention),
        task.origin,
        task.after and key(task.after),
        int(task.plain),
        task.unique_key,
        task.idempotency_key,
        task.limit_key,
        more.get("more"),
        task.failures_left_out,
        more.get("secrets"),
        *_standing(task),
        since and from_instant(since),
    )


def is_leased(columns: tuple[str, ...]) -> bool:
    """Return True if these are the columns of a task that was leased when it was stored."""
    return columns[-len(_LEASED) :] == _LEASED


def changed(task: Task, now: int) -> Row:
    """Return the values of ``changing.UPDATE``: the task's state, since when if it is queued or waits, and its key."""
    return (*_standing(task), now if task.state in WAITING_SINCE else None, key(task.id))


def _standing(task: Task) -> Row:
    return (
        task.state.value if task.set_aside is None else REFUSED,
        task.attempt,
        task.failed,
        task.crashed,
        int(task.suspect),
        task.losses,
        task.run_at and from_instant(task.run_at),
        task.worker,
        task.lease_until and from_instant(task.lease_until),
        task.started_at and from_instant(task.started_at),
        task.finished_at and from_instant(task.finished_at),
        task.cancel_requested,
        task.reason,
        task.cause and key(task.cause),
        task.progress and task.progress.to_text(),
        task.result,
        task.expires_at and from_instant(task.expires_at),
        None if task.set_aside is None else task.state.value,
        task.set_aside,
    )


def has_more(task: Task) -> bool:
    """Return True if any rare field is set. Other tasks pay for this one check only."""
    return not (
        task.overrides is None
        and task.unique_key is None
        and task.idempotency_key is None
        and task.context is None
        and task.limit_key == UNLIMITED
        and task.rerun_after_crash
        and task.expires_at is None
        and not task.secrets
    )


def _more(task: Task) -> Iterator[tuple[str, Any]]:
    """Yield the rare fields: as columns of their own if tasks are looked up by them, and all together as JSON."""
    if task.overrides is not None:
        yield "overrides", task.overrides
    if task.expires_at is not None:
        yield "expires_at", from_instant(task.expires_at)
    if task.secrets:
        yield "secrets", json.dumps(task.secrets)
    more = {name: value for name, absent in MORE.items() if (value := getattr(task, name)) != absent}
    for name in more.keys() & {"unique_key", "idempotency_key", "limit_key"}:
        yield name, more[name]
    if more:
        yield "more", json.dumps(more)


MORE: Final[Mapping[str, object]] = {
    "unique_key": None,
    "idempotency_key": None,
    "limit_key": UNLIMITED,
    "rerun_after_crash": True,
    "context": None,
}
"""The rare fields that are stored together, and the value of each in a task without it."""


def from_failure(task_id: str, failure: Failure) -> Row:
    """Return the values of ``changing.INSERT_FAILURE``."""
    return (
        key(task_id),
        failure.attempt,
        from_instant(failure.at),
        failure.worker,
        failure.kind.value,
        failure.type,
        failure.message,
        failure.traceback,
    )


def from_logs(task_id: str, logs: Sequence[LogLine]) -> list[Row]:
    """Return the values of ``changing.INSERT_LOGS``: a row for each attempt."""
    return [
        (
            key(task_id),
            attempt,
            json.dumps([(from_instant(line.at), line.level, line.logger, line.message) for line in lines]),
        )
        for attempt, lines in groupby(logs, attrgetter("attempt"))
    ]
