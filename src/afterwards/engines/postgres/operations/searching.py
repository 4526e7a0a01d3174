"""Lists of tasks by filter, and their numbers. A text is looked for in pieces."""

from collections.abc import Collection
from heapq import nlargest
from typing import Any

from afterwards.core.search import folded
from afterwards.core.task import State, Task
from afterwards.engine import Query
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import reading
from afterwards.engines.postgres.operations.reading import LISTED_FAILURES
from afterwards.engines.postgres.rows import COLUMNS, SEQ
from afterwards.engines.postgres.work import Operation, fetch
from afterwards.engines.searching import ALL, FEW, FIRST, LAST, Span

FIND = f"""
    (
        SELECT {COLUMNS}, {LISTED_FAILURES}
        FROM afterwards_tasks t WHERE {{conditions}} ORDER BY t.seq DESC LIMIT %s
    )
"""

BEFORE = "t.seq < (SELECT seq FROM afterwards_tasks WHERE id = %s::uuid)"

COUNT_PART = "(SELECT 1 FROM afterwards_tasks t WHERE {conditions} LIMIT %s)"

COUNT = "SELECT count(*) FROM (SELECT 1 FROM ({parts}) AS part LIMIT %s) AS found"

# The task in whose place a search of the newest ones stops.
STOP = "SELECT seq FROM afterwards_tasks WHERE seq < %s ORDER BY seq DESC LIMIT 1 OFFSET %s"

WITHIN = "t.seq >= %s AND t.seq < %s"

# ASCII letters only, as in `core.search`: that is how the collation "C" knows cases.
_FOUND = 'strpos(lower(({place}) COLLATE "C"), %s) > 0'

FOUND = f"""
    (
        {_FOUND.format(place="t.id::text")} OR {_FOUND.format(place="t.name")} OR {_FOUND.format(place="t.origin")}
        OR (t.secrets IS NULL AND ({_FOUND.format(place="t.arguments")} OR (t.attempt > 0 AND EXISTS (
            SELECT 1 FROM afterwards_failures f
            WHERE f.task = t.id AND {_FOUND.format(place="f.type || ': ' || f.message")}
        ))))
    )
"""

SINCE = "coalesce(t.finished_at, t.created_at) >= %s"

# By the index, whatever the planner believes: there are few of them.
BEHIND = "t.seq IN (SELECT seq FROM afterwards_tasks WHERE after = %s::uuid)"

MOST_SEARCHED = 10_000
"""Tasks in which one statement looks for a text, so that none takes long."""


def find(query: Query, below: int = LAST) -> Operation[tuple[list[Task], int | None]]:
    """Return tasks below a place, and the place below which to go on, None at the end."""
    if _finds_nothing(query):
        return [], None
    span = yield from _span(query, below)
    statement, values = _union(query, span, FIND)
    found = yield from fetch(statement, *values)
    newest = nlargest(query.limit, found, key=lambda row: row[SEQ])
    return [reading.to_task(columns, failures) for *columns, failures in newest], span.next


def count(query: Query, below: int = LAST) -> Operation[tuple[int, int | None]]:
    """Return the number of tasks below a place, and the place below which to go on, None at the end."""
    if _finds_nothing(query):
        return 0, None
    span = yield from _span(query, below)
    parts, values = _union(query, span, COUNT_PART)
    [(number,)] = yield from fetch(COUNT.format(parts=parts), *values, query.limit)
    return int(number), span.next


def _span(query: Query, below: int) -> Operation[Span]:
    """Return the span of the next tasks: all, unless a text is sought in what may be very many."""
    are_few = query.set_aside or (query.states is not None and query.states <= FEW)
    if query.text is None or are_few or query.behind is not None or query.idempotency_keys is not None:
        return ALL
    stop = yield from fetch(STOP, below, MOST_SEARCHED - 1)
    return Span(stop[0][0] if stop else FIRST, below)


def _finds_nothing(query: Query) -> bool:
    """Return True if no task that is stored can match."""
    return (
        frozenset() in (query.states, query.names, query.queues, query.idempotency_keys)
        or (query.before is not None and not rows.is_uuid(query.before))
        or (query.behind is not None and not rows.is_uuid(query.behind))
        or (query.text is not None and not rows.is_storable(query.text))
    )


def _union(query: Query, span: Span, statement: str) -> tuple[str, list[Any]]:
    """Return one statement for all parts of a query, and its values."""
    statements, values = list[str](), list[Any]()
    for part in _parts(query):
        conditions, some = _conditions(query, span, part)
        statements.append(statement.format(conditions=" AND ".join(conditions)))
        values += [*some, query.limit]
    return " UNION ALL ".join(statements), values


def _parts(query: Query) -> list[str]:
    """Return conditions that together find all of a query's states, each of which has an index."""
    if query.set_aside:
        return ["t.aside_from IS NOT NULL" + _states("aside_from", query.states)]
    if query.states is None:
        return ["true"]
    parts = [f"t.state = '{state}'" for state in sorted(query.states)]
    return [*parts, "t.aside_from IS NOT NULL" + _states("aside_from", query.states)]


def _states(column: str, states: Collection[State] | None) -> str:
    names = ", ".join(f"'{state}'" for state in sorted(states or ()))
    return "" if states is None else f" AND t.{column} IN ({names})"


def _conditions(query: Query, span: Span, part: str) -> tuple[list[str], list[Any]]:
    conditions, values = [part], list[Any]()
    if span != ALL:
        conditions.append(WITHIN)
        values += span
    wanted = (("name", query.names), ("queue", query.queues), ("idempotency_key", query.idempotency_keys))
    for column, some in wanted:
        if some is not None:
            conditions.append(f"t.{column} = ANY (%s::text[])")
            values.append(sorted(some))
    if query.before is not None:
        conditions.append(BEFORE)
        values.append(query.before)
    if query.behind is not None:
        conditions.append(BEHIND)
        values.append(query.behind)
    if query.since is not None:
        conditions.append(SINCE)
        values.append(rows.from_instant(query.since))
    if query.text is not None:
        conditions.append(FOUND)
        values += [folded(query.text)] * FOUND.count("%s")
    return conditions, values
