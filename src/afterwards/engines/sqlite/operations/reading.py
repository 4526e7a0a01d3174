"""What is asked of the file without changing it. Every function runs in one transaction."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from heapq import nlargest

from afterwards.core.task import Failure, State, Task
from afterwards.engine import Query, Stats
from afterwards.engines.sqlite import rows, shapes
from afterwards.engines.sqlite.columns import ASIDE, COLUMNS, LIMITED, QUEUED
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import salvage
from afterwards.engines.sqlite.rows import Row

GET = f"SELECT {COLUMNS} FROM afterwards_tasks WHERE id = ?"

ALIAS = "SELECT task FROM afterwards_aliases WHERE id = ?"

PLACE = "SELECT seq, id FROM afterwards_tasks WHERE id = ?"

FAILURES = """
    SELECT attempt, at, worker, kind, type, message, traceback FROM afterwards_failures WHERE task = ? ORDER BY rowid
"""

LISTED_FAILURES = FAILURES.replace("message, traceback", "message, ''")

FIND = f"""
    SELECT {COLUMNS} FROM afterwards_tasks
    WHERE seq IN (SELECT seq FROM afterwards_tasks {{index}} WHERE {{conditions}} ORDER BY seq DESC LIMIT ?)
"""

BEFORE = "seq < (SELECT seq FROM afterwards_tasks WHERE id = ?)"

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

OLDEST = """
    SELECT created_at FROM afterwards_tasks
    WHERE seq = (
        SELECT min(seq) FROM (
            SELECT min(seq) AS seq FROM afterwards_tasks INDEXED BY afterwards_queued
            WHERE state = 'queued' AND limit_key = ''
            UNION ALL
            SELECT min(seq) FROM afterwards_tasks INDEXED BY afterwards_limited
            WHERE state = 'queued' AND limit_key != ''
        )
    )
"""

PARTS = {
    State.WAITING: [("state = 'waiting'", "INDEXED BY afterwards_waiting")],
    State.SCHEDULED: [("state = 'scheduled'", "INDEXED BY afterwards_scheduled")],
    State.QUEUED: [
        (QUEUED, "INDEXED BY afterwards_queued"),
        (LIMITED, "INDEXED BY afterwards_limited"),
    ],
    State.RUNNING: [("state = 'running'", "INDEXED BY afterwards_running")],
    State.SUCCEEDED: [("state = 'succeeded'", "NOT INDEXED")],  # most are, so that the newest are found at once
    State.FAILED: [("finished_at IS NOT NULL AND state = 'failed'", "INDEXED BY afterwards_ended")],
    State.CANCELLED: [("finished_at IS NOT NULL AND state = 'cancelled'", "INDEXED BY afterwards_ended")],
}
"""How the tasks in a state are found: a condition, and the index that has them."""


def get(connection: Connection, ids: Iterable[str]) -> list[Task]:
    found = (_get(connection, rows.key(id)) for id in ids)
    return to_tasks(connection, [row for row in found if row is not None])


def without_failures(connection: Connection, ids: Iterable[str]) -> Iterator[tuple[Row, Task]]:
    """The rows that exist of these tasks, and the tasks."""
    for id in ids:
        if (row := _get(connection, rows.key(id))) is not None:
            yield row, task_of(connection, row)


def _get(connection: Connection, key: bytearray) -> Row | None:
    """The row of a task, also by the id of a call that it stands for."""
    row: Row | None = connection.execute(GET, (key,)).fetchone()
    if row is None and (alias := connection.execute(ALIAS, (key,)).fetchone()):
        row = connection.execute(GET, (rows.raw(alias[0]),)).fetchone()
    return row


def in_the_order_stored(connection: Connection, ids: Iterable[str]) -> list[str]:
    """Those of the ids that exist, each once."""
    places = {place for id in ids if (place := _place(connection, rows.key(id)))}
    return [rows.to_id(key) for _, key in sorted(places)]


def _place(connection: Connection, key: bytearray) -> tuple[int, bytes] | None:
    """Where a task stands in the order stored, and its key; also by the id of a call that it stands for."""
    place: tuple[int, bytes] | None = connection.execute(PLACE, (key,)).fetchone()
    if place is None and (alias := connection.execute(ALIAS, (key,)).fetchone()):
        place = connection.execute(PLACE, (rows.raw(alias[0]),)).fetchone()
    return place


def find(connection: Connection, query: Query) -> list[Task]:
    if frozenset() in (query.states, query.names, query.queues, query.idempotency_keys):
        return []
    found = [row for where, index in _parts(query) for row in _find(connection, query, where, index)]
    listed = nlargest(query.limit, found, key=lambda row: row[-1])
    return to_tasks(connection, listed, failures=LISTED_FAILURES)


def _parts(query: Query) -> Iterator[tuple[list[str], str]]:
    """Conditions that find all of a query's states together, and the index of each."""
    if query.states is None and not query.set_aside:
        yield [], ""
        return
    aside = [ASIDE]
    if query.states is not None:
        states = ", ".join(f"'{state}'" for state in sorted(query.states))
        aside.append(f"aside_from IN ({states})")
        for state in () if query.set_aside else query.states:
            for where, index in PARTS[state]:
                yield [where], index
    yield aside, "INDEXED BY afterwards_aside"


def stats(connection: Connection) -> Stats:
    counts: Counter[tuple[str, State]] = Counter()
    for queue, state, count in connection.execute(COUNTS):
        counts[queue if shapes.is_text(queue) else repr(queue), rows.STATES.get(state, State.WAITING)] += count
    row = connection.execute(OLDEST).fetchone()
    oldest = timedelta(microseconds=connection.instant - row[0]) if row and isinstance(row[0], int) else None
    return Stats(counts=counts, oldest=oldest)


def expired(connection: Connection, limit: int) -> tuple[list[Task], list[int]]:
    """Tasks whose lease has run out; and where those stand whose rows cannot be read."""
    found = connection.execute(EXPIRED, (connection.instant, limit)).fetchall()
    tasks = [(task_of(connection, row), row[-1]) for row in found]
    return [task for task, _ in tasks if not task.unreadable], [seq for task, seq in tasks if task.unreadable]


def task_of(connection: Connection, row: Row, failures: tuple[Failure, ...] = ()) -> Task:
    """A row as a task; of one that cannot be read, what can be, and the reason."""
    return salvage.task_of(row, failures, texts=connection.odd_texts)


def to_tasks(connection: Connection, found: Iterable[Row], *, failures: str = FAILURES) -> list[Task]:
    """Tasks with their failures."""
    return [task_of(connection, row, _failures(connection, row, failures)) for row in found]


def _failures(connection: Connection, row: Row, statement: str) -> tuple[Failure, ...]:
    if row[rows.ATTEMPT] == 0 or not isinstance(row[0], bytes):
        return ()
    return tuple(map(salvage.failure_of, connection.execute(statement, (bytearray(row[0]),)).fetchall()))


def _find(connection: Connection, query: Query, conditions: Sequence[str], index: str) -> list[Row]:
    if query.idempotency_keys is not None:
        index = "INDEXED BY afterwards_idempotent"  # one of each at most
    where, values = list(conditions), list[object]()
    wanted_values = (("name", query.names), ("queue", query.queues), ("idempotency_key", query.idempotency_keys))
    for column, wanted in wanted_values:
        if wanted is not None:
            where.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            values += wanted
    if query.before is not None:
        where.append(BEFORE)
        values.append(rows.key(query.before))
    statement = FIND.format(index=index, conditions=" AND ".join(where) or "1")
    return connection.execute(statement, (*values, query.limit)).fetchall()
