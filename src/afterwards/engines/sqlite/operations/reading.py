"""Tasks by their ids, and counts of all. Every function runs in one transaction, and does not change the file."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from afterwards.core.tallies import Ends, Tally, step_of
from afterwards.core.task import Failure, LogLine, State, Task
from afterwards.engine import Stats
from afterwards.engines.sqlite import many, rows, shapes
from afterwards.engines.sqlite.columns import ASIDE, COLUMNS, LIMITED, QUEUED
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import salvage
from afterwards.engines.sqlite.rows import Row

EXPIRED = f"""
    SELECT {COLUMNS} FROM afterwards_tasks WHERE state = 'running' AND lease_until <= ?
    ORDER BY lease_until, seq LIMIT ?
"""

COUNTS = f"""
    SELECT queue, 'waiting', count(*) FROM afterwards_tasks WHERE state = 'waiting' GROUP BY queue
    UNION ALL
    SELECT queue, 'scheduled', count(*) FROM afterwards_tasks WHERE state = 'scheduled' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks INDEXED BY afterwards_queued
    WHERE state = 'queued' AND limit_key = '' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE state = 'queued' AND limit_key != '' GROUP BY queue
    UNION ALL
    SELECT queue, 'running', count(*) FROM afterwards_tasks WHERE state = 'running' GROUP BY queue
    UNION ALL
    SELECT queue, state, count(*) FROM afterwards_tasks INDEXED BY afterwards_ended
    WHERE finished_at IS NOT NULL GROUP BY state, queue
    UNION ALL
    SELECT queue, aside_from, count(*) FROM afterwards_tasks INDEXED BY afterwards_aside
    WHERE {ASIDE} GROUP BY 1, 2
"""

OLDEST = f"""
    SELECT (
        SELECT min(coalesce(queued_at, created_at)) FROM afterwards_tasks INDEXED BY afterwards_queued WHERE {QUEUED}
    ), (
        SELECT min(coalesce(queued_at, created_at)) FROM afterwards_tasks INDEXED BY afterwards_limited_first
        WHERE {LIMITED}
    ), (
        SELECT run_at FROM afterwards_tasks INDEXED BY afterwards_scheduled
        WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT 1
    )
"""

Found = tuple[Row, Task]
"""A row and its task. The task's failures are not read."""

GET_ALL = f"SELECT {COLUMNS} FROM afterwards_tasks WHERE id IN ({{places}})"

ALIASES = "SELECT id, task FROM afterwards_aliases WHERE id IN ({places})"

PLACES = "SELECT seq, id FROM afterwards_tasks WHERE id IN ({places})"

FAILURES = """
    SELECT task, attempt, at, worker, kind, type, message, traceback FROM afterwards_failures
    WHERE task IN ({places}) ORDER BY task, rowid
"""

LISTED_FAILURES = FAILURES.replace("message, traceback", "message, ''")

LOGS = "SELECT task, attempt, lines FROM afterwards_logs WHERE task IN ({places}) ORDER BY task, rowid"

TALLIES = """
    SELECT at - at % ?, sum(succeeded), sum(failed), sum(retried) FROM afterwards_tallies WHERE at >= ?
    GROUP BY 1 ORDER BY 1
"""


def get(connection: Connection, ids: Sequence[str]) -> list[Task]:
    found = _rows(connection, ids)
    return with_logs(connection, to_tasks(connection, [found[id] for id in ids if id in found]))


def found(connection: Connection, ids: Iterable[str]) -> dict[str, Found]:
    """Return those of these tasks that exist, by their own ids, each once, in the order asked for; without failures."""
    tasks = ((row, task_of(connection, row)) for row in _rows(connection, ids).values())
    return {task.id: (row, task) for row, task in tasks}


def standing(connection: Connection, ids: Iterable[str]) -> dict[str, Task]:
    """Return the tasks that these ids stand for, including ids of calls that another task answered; with failures."""
    found = _rows(connection, ids)
    return dict(zip(found, to_tasks(connection, [*found.values()]), strict=True))


def by_key(connection: Connection, keys: Collection[bytearray]) -> list[Row]:
    return many.select(connection, GET_ALL, keys)


def _rows(connection: Connection, ids: Iterable[str]) -> dict[str, Row]:
    """Return the rows of tasks, also by the ids of calls that they stand for, in the order asked for."""
    keys = {id: rows.key(id) for id in ids}
    found = {row[0]: row for row in by_key(connection, keys.values())}
    missing = [key for key in keys.values() if bytes(key) not in found]
    aliases: dict[bytes, bytes] = dict(many.select(connection, ALIASES, missing))
    found |= {row[0]: row for row in by_key(connection, [rows.raw(key) for key in aliases.values()])}
    standing = {id: aliases.get(bytes(key), bytes(key)) for id, key in keys.items()}
    return {id: found[key] for id, key in standing.items() if key in found}


def in_the_order_stored(connection: Connection, ids: Iterable[str]) -> list[str]:
    """Return those of the ids that exist, each once."""
    keys = [rows.key(id) for id in ids]
    aliases = [rows.raw(key) for _, key in many.select(connection, ALIASES, keys)]
    return [rows.to_id(key) for _, key in sorted({*many.select(connection, PLACES, [*keys, *aliases])})]


def stats(connection: Connection) -> Stats:
    counts: Counter[tuple[str, State]] = Counter()
    for queue, state, count in connection.execute(COUNTS):
        counts[queue if shapes.is_text(queue) else repr(queue), rows.STATES.get(state, State.WAITING)] += count
    since = connection.execute(OLDEST, (connection.instant,)).fetchone()
    instants = [rows.instant_or(instant, connection.now) for instant in since if instant is not None]
    oldest = max(timedelta(), connection.now - min(instants)) if instants else None
    return Stats(counts=counts, oldest=oldest)


def tallies(connection: Connection, since: timedelta, step: timedelta) -> list[Tally]:
    first = rows.from_instant(step_of(connection.now - since, step))
    found = connection.execute(TALLIES, (rows.from_span(step), first)).fetchall()
    return [Tally(rows.to_instant(at), Ends(*map(int, numbers))) for at, *numbers in found]


def expired(connection: Connection, limit: int) -> tuple[list[Task], list[int]]:
    """Return tasks whose lease has run out, and the ``seq`` of rows that cannot be read."""
    found = connection.execute(EXPIRED, (connection.instant, limit)).fetchall()
    tasks = [(task_of(connection, row), row[-1]) for row in found]
    return [task for task, _ in tasks if not task.unreadable], [seq for task, seq in tasks if task.unreadable]


def task_of(connection: Connection, row: Row, failures: tuple[Failure, ...] = ()) -> Task:
    """Return a row as a task. If it cannot be read, return the readable part and the reason."""
    return salvage.task_of(row, failures, texts=connection.odd_texts)


def to_tasks(connection: Connection, found: Sequence[Row], *, failures: str = FAILURES) -> list[Task]:
    """Return rows as tasks with their failures."""
    keys = [row[0] for row in found if row[rows.ATTEMPT] != 0 and isinstance(row[0], bytes)]
    by_task: dict[bytes, list[Failure]] = {}
    for key, *failure in many.select(connection, failures, [bytearray(key) for key in keys]):
        by_task.setdefault(key, []).append(salvage.failure_of(tuple(failure)))
    return [task_of(connection, row, tuple(by_task.get(row[0], ()))) for row in found]


def with_logs(connection: Connection, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks with what their attempts logged."""
    logs: dict[str, list[LogLine]] = {}
    for key, *lines in many.select(connection, LOGS, [rows.key(task.id) for task in tasks if task.attempt]):
        logs.setdefault(rows.to_id(key), []).extend(salvage.logs_of(*lines))
    return [replace(task, logs=tuple(logs[task.id])) if task.id in logs else task for task in tasks]
