"""Lists and counts of the tasks that a query names. Every function runs in one transaction, and changes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

from afterwards.core.search import folded
from afterwards.core.task import State, Task
from afterwards.core.text import is_unicode
from afterwards.engine import Query
from afterwards.engines.searching import ALL, FEW, FIRST, LAST, Span
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.columns import ASIDE, COLUMNS, LIMITED, QUEUED
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import reading
from afterwards.engines.sqlite.rows import Row

FIND = f"""
    SELECT {COLUMNS} FROM afterwards_tasks
    WHERE seq IN (SELECT seq FROM afterwards_tasks {{index}} WHERE {{conditions}} ORDER BY seq DESC LIMIT ?)
"""

COUNT = "SELECT count(*) FROM (SELECT 1 FROM afterwards_tasks {index} WHERE {conditions} LIMIT ?)"

# The task in whose place a search of the newest ones stops.
STOP = "SELECT seq FROM afterwards_tasks WHERE seq < ? ORDER BY seq DESC LIMIT 1 OFFSET ?"

WITHIN = "seq >= ? AND seq < ?"

BEFORE = "seq < (SELECT seq FROM afterwards_tasks WHERE id = ?)"

SINCE = "coalesce(finished_at, created_at) >= ?"

BEHIND = "after IS NOT NULL AND coalesce(after, '') = ?"

# Translates ``search.contains``. SQLite's `lower` changes ASCII letters only.
CONTAINS = """(
    instr(lower(name), ?) OR instr(lower(origin), ?)
    OR (secrets IS NULL AND (
        instr(lower(arguments), ?)
        OR EXISTS (
            SELECT 1 FROM afterwards_failures
            WHERE task = afterwards_tasks.id AND instr(lower(type || ': ' || message), ?)
        )
    ))
    {or_in_id}
)"""

# The first condition is quick, and fulfilled by few of the ids that the second one writes out.
IN_ID = """OR (instr(hex(id), ?) AND instr(lower(
    substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-'
    || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)
), ?))"""

IN_IDS = frozenset("0123456789abcdef-")
"""The characters of ids: a text with any other is in none of them."""

MOST_SEARCHED = 10_000
"""Tasks in which one transaction looks for a text, so that none takes long: others wait, and so do checkpoints."""

BY_KEY = "INDEXED BY afterwards_idempotent"  # at most one row for each key
BY_AFTER = "INDEXED BY afterwards_after"

Part = tuple[str, str]
"""A condition for tasks, and the index by which they are found."""

PARTS: Mapping[State, Sequence[Part]] = {
    State.WAITING: [("state = 'waiting'", "INDEXED BY afterwards_waiting")],
    State.SCHEDULED: [("state = 'scheduled'", "INDEXED BY afterwards_scheduled")],
    State.QUEUED: [
        (QUEUED, "INDEXED BY afterwards_queued"),
        (LIMITED, "INDEXED BY afterwards_limited"),
    ],
    State.RUNNING: [("state = 'running'", "INDEXED BY afterwards_running")],
    State.SUCCEEDED: [("state = 'succeeded'", "NOT INDEXED")],  # most tasks are, so the newest are found at once
    State.FAILED: [("finished_at IS NOT NULL AND state = 'failed'", "INDEXED BY afterwards_ended")],
    State.CANCELLED: [("finished_at IS NOT NULL AND state = 'cancelled'", "INDEXED BY afterwards_ended")],
}
"""The parts that hold the tasks in a state."""

COUNTED = {
    **PARTS,
    State.SUCCEEDED: [("finished_at IS NOT NULL AND state = 'succeeded'", "INDEXED BY afterwards_ended")],
}
"""The parts by which tasks are counted: the index of ended tasks holds their queue, too, so no task is read."""


class Condition(NamedTuple):
    """A part of a statement, and the values in it."""

    text: str
    values: Sequence[object] = ()


def find(connection: Connection, query: Query, below: int = LAST) -> tuple[list[Task], int | None]:
    """Return tasks below a place, and the place below which to go on, None at the end."""
    if _is_of_nothing(query):
        return [], None
    span = _span(connection, query, below)
    found = [row for part in _parts(query, PARTS) for row in _rows(connection, FIND, query, part, span)]
    listed = nlargest(query.limit, found, key=lambda row: row[-1])
    return reading.to_tasks(connection, listed, failures=reading.LISTED_FAILURES), span.next


def count(connection: Connection, query: Query, below: int = LAST) -> tuple[int, int | None]:
    """Return the number of tasks below a place, and the place below which to go on, None at the end."""
    if _is_of_nothing(query):
        return 0, None
    span = _span(connection, query, below)
    reads_tasks = query.names or query.text or query.since or query.behind or query.idempotency_keys
    parts = _parts(query, PARTS if reads_tasks else COUNTED)
    counts = (int(counted) for part in parts for [counted] in _rows(connection, COUNT, query, part, span))
    return min(query.limit, sum(counts)), span.next


def _span(connection: Connection, query: Query, below: int) -> Span:
    """Return the span of the next tasks: all, unless a text is sought in what may be very many."""
    are_few = query.set_aside or (query.states is not None and query.states <= FEW)
    if not query.text or are_few or _narrow_index(query):
        return ALL
    stop = connection.execute(STOP, (below, MOST_SEARCHED - 1)).fetchone()
    return Span(stop[0] if stop else FIRST, below)


def _is_of_nothing(query: Query) -> bool:
    """Return True if no stored task can match."""
    wanted = (query.states, query.names, query.queues, query.idempotency_keys)
    return frozenset() in wanted or not is_unicode(query.text or "")  # no file holds a lone surrogate


def _parts(query: Query, parts: Mapping[State, Sequence[Part]]) -> Iterator[Part]:
    """Yield the parts that together hold the tasks in all of a query's states."""
    if query.states is None and not query.set_aside:
        yield "1", ""
        return
    aside = ASIDE
    if query.states is not None:
        states = ", ".join(f"'{state}'" for state in sorted(query.states))
        aside = f"{ASIDE} AND aside_from IN ({states})"
        if not query.set_aside:
            yield from (part for state in query.states for part in parts[state])
    yield aside, "INDEXED BY afterwards_aside"


def _rows(connection: Connection, statement: str, query: Query, part: Part, span: Span) -> list[Row]:
    where, index = part
    conditions = [*_conditions(query)]
    if span != ALL:
        index = "NOT INDEXED"
        conditions.insert(0, Condition(WITHIN, span))
    text = statement.format(
        index=_narrow_index(query) or index,
        conditions=" AND ".join([where, *(condition.text for condition in conditions)]),
    )
    values = [value for condition in conditions for value in condition.values]
    return connection.execute(text, (*values, query.limit)).fetchall()


def _narrow_index(query: Query) -> str | None:
    """Return the index by which the query finds few tasks, whatever their states are."""
    if query.idempotency_keys is not None:
        return BY_KEY
    return BY_AFTER if query.behind is not None else None


def _conditions(query: Query) -> Iterator[Condition]:
    wanted_values = (("name", query.names), ("queue", query.queues), ("idempotency_key", query.idempotency_keys))
    for column, wanted in wanted_values:
        if wanted is not None:
            yield Condition(f"{column} IN ({', '.join('?' * len(wanted))})", [*wanted])
    if query.before is not None:
        yield Condition(BEFORE, [rows.key(query.before)])
    if query.since is not None:
        yield Condition(SINCE, [rows.from_instant(query.since)])
    if query.behind is not None:
        yield Condition(BEHIND, [rows.key(query.behind)])
    if query.text:  # every task contains an empty one
        yield _contains(folded(query.text))


def _contains(text: str) -> Condition:
    places = [text] * CONTAINS.count("?")
    if not IN_IDS.issuperset(text):
        return Condition(CONTAINS.format(or_in_id=""), places)
    return Condition(CONTAINS.format(or_in_id=IN_ID), [*places, text.replace("-", "").upper(), text])
