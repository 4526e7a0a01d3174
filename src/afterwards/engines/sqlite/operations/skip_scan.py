"""The lanes of queued tasks, and a skip scan that finds the lanes that a worker serves."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from afterwards.core.limits import UNLIMITED
from afterwards.engine import Claim
from afterwards.engines.sqlite.columns import LIMITED, QUEUED
from afterwards.engines.sqlite.io.connection import Connection, Look
from afterwards.engines.sqlite.shapes import is_text

NEXT_QUEUE = f"SELECT queue FROM afterwards_tasks WHERE {QUEUED} AND suspect = ? AND queue >= ? ORDER BY queue LIMIT 1"

NEXT_NAME = f"""
    SELECT name FROM afterwards_tasks WHERE {QUEUED} AND suspect = ? AND queue = ? AND name >= ? ORDER BY name LIMIT 1
"""

LANE = f"""
    SELECT -priority, seq, suspect FROM afterwards_tasks WHERE {QUEUED} AND suspect = ? AND queue = ? AND name = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

NEXT_LIMITED_QUEUE = f"""
    SELECT queue FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE {LIMITED} AND suspect = ? AND queue >= ?
    ORDER BY queue LIMIT 1
"""

NEXT_LIMITED_NAME = f"""
    SELECT name FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name >= ?
    ORDER BY name LIMIT 1
"""

NEXT_LIMIT_KEY = f"""
    SELECT limit_key FROM afterwards_tasks
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name = ? AND limit_key >= ?
    ORDER BY limit_key LIMIT 1
"""

LIMITED_LANE = f"""
    SELECT -priority, seq, suspect FROM afterwards_tasks
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name = ? AND limit_key = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

BUNDLE = f"""
    SELECT -priority, seq, suspect, limit_key FROM afterwards_tasks INDEXED BY afterwards_limited_first
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

INNOCENT, SUSPECT = 0, 1


class Lane(NamedTuple):
    """Queued tasks in one order: the best first, then the oldest."""

    suspicion: int
    queue: str
    name: str
    limit_key: str

    def places(self, connection: Connection, most: int) -> Iterable[tuple[int, int, int]]:
        if self.limit_key == UNLIMITED:
            return connection.execute(LANE, (self.suspicion, self.queue, self.name, most))
        return connection.execute(LIMITED_LANE, (*self, most))


class Bundle(NamedTuple):
    """The lanes of one function's tasks that have a limit: one lane for each limit key."""

    suspicion: int
    queue: str
    name: str

    def lanes(self, connection: Connection) -> Iterator[Lane]:
        for limit_key in present(connection, NEXT_LIMIT_KEY, self, None):
            yield Lane(*self, limit_key)

    def first(self, connection: Connection, most: int) -> list[tuple[int, int, int, str]]:
        """Return the first tasks of all lanes, as if they were one lane, each with its limit key."""
        found: list[tuple[int, int, int, str]] = connection.execute(BUNDLE, (*self, most)).fetchall()
        return found


def is_any(connection: Connection, claim: Claim, look: Look, suspicion: int) -> bool:
    """Return True if any task is queued for the worker."""
    return any(True for lines in (lanes, bundles) for _ in lines(connection, claim, look, suspicion))


def lanes(connection: Connection, claim: Claim, look: Look, suspicion: int) -> Iterator[Lane]:
    """Yield the lanes without a limit that hold tasks for the worker. Lanes that others serve are skipped."""
    if look.queued:
        for queue, name in _served(connection, claim, suspicion, NEXT_QUEUE, NEXT_NAME):
            yield Lane(suspicion, queue, name, UNLIMITED)


def bundles(connection: Connection, claim: Claim, look: Look, suspicion: int) -> Iterator[Bundle]:
    """Yield the bundles with a limit that hold tasks for the worker."""
    if look.limited:
        statement = NEXT_LIMITED_QUEUE, NEXT_LIMITED_NAME
        for queue, name in _served(connection, claim, suspicion, *statement):
            yield Bundle(suspicion, queue, name)


def _served(
    connection: Connection, claim: Claim, suspicion: int, next_queue: str, next_name: str
) -> Iterator[tuple[str, str]]:
    paused = connection.paused
    names = claim.names - paused.names if paused.names else claim.names
    for queue in present(connection, next_queue, (suspicion,), claim.queues):
        if queue not in paused.queues:
            for name in present(connection, next_name, (suspicion, queue), names):
                yield queue, name


def present(
    connection: Connection, statement: str, above: Sequence[object], wanted: frozenset[str] | None
) -> Iterator[str]:
    """Yield those of the wanted values that an index holds (None: all of them), by one look-up for each."""
    start = "" if wanted is None else next(iter(_ordered(wanted)), None)
    while start is not None and (row := connection.execute(statement, (*above, start)).fetchone()):
        [found] = row
        if not is_text(found):  # it cannot be a parameter, and only such values come behind it
            connection.odd_lanes = True
            return
        if wanted is None or found in wanted:
            yield found
        start = _behind(found, wanted)


def _behind(found: str, wanted: frozenset[str] | None) -> str | None:
    """Return the value to look up next, None if none can be left."""
    if wanted is None:
        return found + "\0"
    ordered = _ordered(wanted)
    index = bisect_right(ordered, found)
    return ordered[index] if index < len(ordered) else None


@lru_cache(maxsize=32)
def _ordered(wanted: frozenset[str]) -> list[str]:
    """Return the values in the order in which SQLite compares text: by code points."""
    return sorted(wanted)
