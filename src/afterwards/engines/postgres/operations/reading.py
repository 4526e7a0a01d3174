"""Queries that change nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from afterwards.core.task import State, Task
from afterwards.engine import Stats
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.rows import COLUMNS, Row, known_ids
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

LISTED_FAILURES = _FAILURES.format(traceback="''")

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
    by_id = {written[id]: to_task(columns, failures, logs) for *columns, failures, logs, id in found}
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
    return [to_task(row, *histories.get(row[rows.ID], ())) for row in found]


def to_task(row: Sequence[Any], failures: str | None = None, logs: str | None = None) -> Task:
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
