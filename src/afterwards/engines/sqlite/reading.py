"""What is asked of the file without changing it. Every function runs in one transaction."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from heapq import nlargest

from afterwards.core.task import State, Task
from afterwards.engine import Query, Stats
from afterwards.engines.sqlite import rows, statements
from afterwards.engines.sqlite.connection import Connection
from afterwards.engines.sqlite.rows import Row

PARTS = {
    State.WAITING: [("state = 'waiting'", "INDEXED BY afterwards_waiting")],
    State.SCHEDULED: [("state = 'scheduled'", "INDEXED BY afterwards_scheduled")],
    State.QUEUED: [
        (statements.QUEUED, "INDEXED BY afterwards_queued"),
        (statements.LIMITED, "INDEXED BY afterwards_limited"),
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


def _get(connection: Connection, key: bytearray) -> Row | None:
    """The row of a task, also by the id of a call that it stands for."""
    row: Row | None = connection.execute(statements.GET, (key,)).fetchone()
    if row is None and (alias := connection.execute(statements.ALIAS, (key,)).fetchone()):
        row = connection.execute(statements.GET, (bytearray(alias[0]),)).fetchone()
    return row


def in_the_order_stored(connection: Connection, ids: Iterable[str]) -> list[str]:
    """Those of the ids that exist, each once."""
    places = {place for id in ids if (place := _place(connection, rows.key(id)))}
    return [rows.to_id(key) for _, key in sorted(places)]


def _place(connection: Connection, key: bytearray) -> tuple[int, bytes] | None:
    """Where a task stands in the order stored, and its key; also by the id of a call that it stands for."""
    place: tuple[int, bytes] | None = connection.execute(statements.PLACE, (key,)).fetchone()
    if place is None and (alias := connection.execute(statements.ALIAS, (key,)).fetchone()):
        place = connection.execute(statements.PLACE, (bytearray(alias[0]),)).fetchone()
    return place


def find(connection: Connection, query: Query) -> list[Task]:
    if frozenset() in (query.states, query.names, query.queues, query.idempotency_keys):
        return []
    if query.states is None:
        found = _find(connection, query, [], "")
    else:
        parts = [part for state in query.states for part in PARTS[state]]
        found = [row for where, index in parts for row in _find(connection, query, [where], index)]
    return to_tasks(connection, nlargest(query.limit, found, key=lambda row: row[-1]))


def stats(connection: Connection) -> Stats:
    counts: Counter[tuple[str, State]] = Counter()
    for queue, state, count in connection.execute(statements.COUNTS):
        counts[queue, State(state)] += count
    row = connection.execute(statements.OLDEST).fetchone()
    oldest = timedelta(microseconds=connection.instant - row[0]) if row else None
    return Stats(counts=counts, oldest=oldest)


def expired(connection: Connection, limit: int) -> list[Task]:
    return to_tasks(connection, connection.execute(statements.EXPIRED, (connection.instant, limit)).fetchall())


def to_tasks(connection: Connection, found: Iterable[Row], *, unfailed: int = 0) -> list[Task]:
    """Tasks with their failures; those with so many attempts cannot have any."""
    tasks = []
    for row in found:
        may_have_failed = row[rows.ATTEMPT] > unfailed
        failures = connection.execute(statements.FAILURES, (bytearray(row[0]),)) if may_have_failed else ()
        tasks.append(rows.to_task(row, tuple(map(rows.to_failure, failures))))
    return tasks


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
        where.append(statements.BEFORE)
        values.append(rows.key(query.before))
    statement = statements.FIND.format(index=index, conditions=" AND ".join(where) or "1")
    return connection.execute(statement, (*values, query.limit)).fetchall()
