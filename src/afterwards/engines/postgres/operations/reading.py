"""Queries that change nothing."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from heapq import nlargest
from typing import Any

from afterwards.core.search import folded
from afterwards.core.task import State, Task
from afterwards.engine import Query, Stats
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row, known_ids
from afterwards.engines.postgres.work import Operation, Work, fetch

_FAILURES = """
    CASE WHEN t.attempt > 0 THEN (
        SELECT json_agg(
            json_build_array(f.attempt, f.at, f.worker, f.kind, f.type, f.message, {traceback}) ORDER BY f.seq
        )::text
        FROM afterwards_failures f WHERE f.task = t.id
    ) END
"""

_LOGS = """
    CASE WHEN t.attempt > 0 THEN (
        SELECT json_agg(json_build_array(l.attempt, l.lines) ORDER BY l.attempt)::text
        FROM afterwards_logs l WHERE l.task = t.id
    ) END
"""

_WHOLE_FAILURES = _FAILURES.format(traceback="f.traceback")

# In the same statement as a task: so the task, its failures and its logs are of the same instant.
STANDING = f"""
    SELECT {COLUMNS}, {_WHOLE_FAILURES}, {_LOGS}, named.id::text FROM (
        SELECT id, id AS task FROM unnest(%s::uuid[]) AS asked (id)
        UNION ALL
        SELECT id, task FROM afterwards_aliases WHERE id = ANY (%s::uuid[])
    ) AS named
    JOIN afterwards_tasks t ON t.id = named.task
"""

FAILURES = f"SELECT t.id::text, {_WHOLE_FAILURES} FROM afterwards_tasks t WHERE t.id = ANY (%s::uuid[])"

HISTORIES = f"SELECT t.id::text, {_WHOLE_FAILURES}, {_LOGS} FROM afterwards_tasks t WHERE t.id = ANY (%s::uuid[])"

PLACES = """
    SELECT DISTINCT t.seq, t.id::text FROM afterwards_tasks t
    WHERE t.id IN (
        SELECT id FROM unnest(%s::uuid[]) AS id UNION SELECT task FROM afterwards_aliases WHERE id = ANY (%s::uuid[])
    )
    ORDER BY t.seq
"""

FIND = f"""
    (
        SELECT {COLUMNS}, {_FAILURES.format(traceback="''")}
        FROM afterwards_tasks t WHERE {{conditions}} ORDER BY t.seq DESC LIMIT %s
    )
"""

BEFORE = "t.seq < (SELECT seq FROM afterwards_tasks WHERE id = %s::uuid)"

COUNT_PART = "(SELECT 1 FROM afterwards_tasks t WHERE {conditions} LIMIT %s)"

COUNT = "SELECT count(*) FROM (SELECT 1 FROM ({parts}) AS part LIMIT %s) AS found"

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

EXPIRED = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t WHERE t.state = 'running' AND t.lease_until <= %s
    ORDER BY t.lease_until, t.seq LIMIT %s
"""

COUNTS = """
    SELECT queue, 'waiting', count(*) FROM afterwards_tasks WHERE state = 'waiting' GROUP BY queue
    UNION ALL
    SELECT queue, 'scheduled', count(*) FROM afterwards_tasks WHERE state = 'scheduled' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks
    WHERE state = 'queued' AND limit_key = '' AND NOT suspect GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks
    WHERE state = 'queued' AND limit_key <> '' AND NOT suspect GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks WHERE state = 'queued' AND suspect GROUP BY queue
    UNION ALL
    SELECT queue, 'running', count(*) FROM afterwards_tasks WHERE state = 'running' GROUP BY queue
    UNION ALL
    SELECT queue, state, count(*) FROM afterwards_tasks WHERE finished_at IS NOT NULL GROUP BY state, queue
    UNION ALL
    SELECT queue, aside_from, count(*) FROM afterwards_tasks WHERE aside_from IS NOT NULL GROUP BY queue, aside_from
"""

OLDEST = """
    SELECT least(
        (SELECT min(coalesce(since, created_at)) FROM afterwards_tasks WHERE state = 'queued'),
        (SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= %s)
    )
"""

_STATES = {state.value: state for state in State}


def get(ids: Sequence[str]) -> Operation[list[Task]]:
    known = known_ids(ids)
    found = (yield from fetch(STANDING, known, known)) if known else []
    written = {id.lower(): id for id in known}  # a UUID may be written in capitals
    by_id = {written[id]: _to_task(columns, failures, logs) for *columns, failures, logs, id in found}
    return [by_id[id] for id in ids if id in by_id]


def to_tasks(found: Sequence[Row]) -> Operation[list[Task]]:
    """Return locked rows as tasks with their failures."""
    return (yield from _with_histories(found, FAILURES))


def to_whole_tasks(found: Sequence[Row]) -> Operation[list[Task]]:
    """Return locked rows as tasks with their failures and logs."""
    return (yield from _with_histories(found, HISTORIES))


def _with_histories(found: Sequence[Row], statement: str) -> Operation[list[Task]]:
    ids = [row[rows.ID] for row in found if row[rows.ATTEMPT]]
    histories = {id: history for id, *history in ((yield from fetch(statement, ids)) if ids else ())}
    return [_to_task(row, *histories.get(row[rows.ID], ())) for row in found]


def _to_task(row: Sequence[Any], failures: str | None = None, logs: str | None = None) -> Task:
    """Return a row as a task, with its failures and logs as JSON."""
    return parsing.to_task(
        tuple(row),
        tuple(map(parsing.to_failure, json.loads(failures or "[]"))),
        parsing.to_logs(json.loads(logs or "[]")),
    )


def in_the_order_stored(ids: Sequence[str]) -> Operation[list[str]]:
    """Return the ids of the tasks that these ids stand for, each once."""
    known = known_ids(ids)
    return [id for _, id in (yield from fetch(PLACES, known, known))] if known else []


def find(query: Query) -> Operation[list[Task]]:
    if _finds_nothing(query):
        return []
    statement, values = _union(query, FIND)
    found = yield from fetch(statement, *values)
    newest = nlargest(query.limit, found, key=lambda row: row[SEQ])
    return [_to_task(columns, failures) for *columns, failures in newest]


def count(query: Query) -> Operation[int]:
    if _finds_nothing(query):
        return 0
    parts, values = _union(query, COUNT_PART)
    [(number,)] = yield from fetch(COUNT.format(parts=parts), *values, query.limit)
    return int(number)


def _finds_nothing(query: Query) -> bool:
    """Return True if no task that is stored can match."""
    return (
        frozenset() in (query.states, query.names, query.queues, query.idempotency_keys)
        or (query.before is not None and not rows.is_uuid(query.before))
        or (query.behind is not None and not rows.is_uuid(query.behind))
        or (query.text is not None and not rows.is_storable(query.text))
    )


def _union(query: Query, statement: str) -> tuple[str, list[Any]]:
    """Return one statement for all parts of a query, and its values."""
    statements, values = list[str](), list[Any]()
    for part in _parts(query):
        conditions, some = _conditions(query, part)
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


def _conditions(query: Query, part: str) -> tuple[list[str], list[Any]]:
    conditions, values = [part], list[Any]()
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


def stats(work: Work) -> Operation[Stats]:
    counts: Counter[tuple[str, State]] = Counter()
    for queue, state, count in (yield from fetch(COUNTS)):
        counts[queue, _STATES.get(state, State.WAITING)] += count
    [(since,)] = yield from fetch(OLDEST, work.instant)
    oldest = None if since is None else timedelta(microseconds=max(0, work.instant - since))
    return Stats(counts=counts, oldest=oldest)


def expired(work: Work, limit: int) -> Operation[list[Row]]:
    """Return the rows of running tasks whose lease has run out."""
    return [*(yield from fetch(EXPIRED, work.instant, limit))]
