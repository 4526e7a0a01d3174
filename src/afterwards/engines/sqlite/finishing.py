"""How attempts and tasks end, and begin again. Every function runs in a transaction that others share."""

from collections.abc import Sequence

from afterwards.core import lifecycle
from afterwards.core.lifecycle import Settled
from afterwards.core.task import Lease, State, Task
from afterwards.engines.sqlite import reading, rows, statements, storing
from afterwards.engines.sqlite.connection import Connection

Ended = tuple[str, Task | None]
"""The id of a task that ended, and the task; None for one that succeeded, of which nobody needs to know more."""


def finish(connection: Connection, settled: Sequence[Settled]) -> list[Lease]:
    """Returns the refused."""
    refused: list[Lease] = []
    succeeded: list[Ended] = []
    for one in settled:
        if one.state is State.SUCCEEDED and one.failure is None:
            held = _succeed(connection, one)
            succeeded += [(one.lease.task_id, None)] if held else []
        else:
            held = _settle(connection, one)
        if not held:
            refused.append(one.lease)
        elif one.then:
            storing.enqueue(connection, [one.then], None)
    _decide_behind(connection, succeeded)
    return refused


def cancel(connection: Connection, ids: Sequence[str], reason: str) -> list[Task]:
    for id in ids:
        for task in reading.get(connection, [id]):
            _put(connection, lifecycle.cancel(task, reason, connection.now))
    return reading.get(connection, ids)


def requeue(connection: Connection, ids: Sequence[str]) -> list[Task]:
    queued = []
    for id in reading.in_the_order_stored(connection, ids):  # a task before those behind it
        for task in reading.get(connection, [id]):
            if task.state.finished and not task.plain:
                queued.append(id)
                _put(connection, lifecycle.requeue(task, connection.now))
                _revive_behind(connection, task)
    return reading.get(connection, queued)


def prune(connection: Connection, limit: int) -> int:
    keys = [(bytearray(key),) for [key] in connection.execute(statements.OVER, (connection.instant, limit))]
    connection.executemany(statements.DELETE, keys)
    connection.executemany(statements.DELETE_FAILURES, keys)
    return len(keys)


def is_any_over(connection: Connection) -> bool:
    return connection.execute(statements.ANY_OVER, (connection.instant,)).fetchone() is not None


def _succeed(connection: Connection, settled: Settled) -> bool:
    """What ``lifecycle.finish`` says of a success, in one statement. Returns whether the lease still held."""
    key = rows.key(settled.lease.task_id)
    values = settled.failed, settled.crashed, connection.instant, settled.result, key, settled.lease.attempt
    return connection.execute(statements.SUCCEED, values).rowcount > 0


def _settle(connection: Connection, settled: Settled) -> bool:
    """Returns whether the lease still held."""
    row = connection.execute(statements.GET, (rows.key(settled.lease.task_id),)).fetchone()
    task = row and lifecycle.finish(rows.to_task(row), settled, connection.now)
    if not task:
        return False
    if settled.failure:
        connection.execute(statements.INSERT_FAILURE, rows.from_failure(task.id, settled.failure))
    _put(connection, task)
    return True


def _put(connection: Connection, task: Task) -> None:
    """Store a task as it stands now; when that ends it, decide on those behind it."""
    connection.execute(statements.UPDATE, rows.changed(task))
    connection.queued |= task.state is State.QUEUED
    if task.state.finished:
        _decide_behind(connection, [(task.id, task)])


def _decide_behind(connection: Connection, ended: Sequence[Ended]) -> None:
    """Decide on the tasks behind those that ended, and on those behind them in turn."""
    if not ended or not connection.execute(statements.ANY_WAITING).fetchone():
        return
    deciding = list(ended)
    for id, before in deciding:
        for row in connection.execute(statements.WAITING_BEHIND, (rows.key(id),)).fetchall():
            task = lifecycle.follow(rows.to_task(row), before, connection.now)
            connection.execute(statements.UPDATE, rows.changed(task))
            connection.queued |= task.state is State.QUEUED
            if task.state.finished:
                deciding.append((task.id, task))


def _revive_behind(connection: Connection, task: Task) -> None:
    """Bring back what was cancelled for the sake of a task, and what was for theirs."""
    revived = [task]
    for before in revived:
        found = connection.execute(statements.CANCELLED_BEHIND, (rows.key(before.id),)).fetchall()
        for behind in filter(lifecycle.cancelled_for_another, map(rows.to_task, found)):
            revived.append(lifecycle.revive(behind))
            connection.execute(statements.UPDATE, rows.changed(revived[-1]))
