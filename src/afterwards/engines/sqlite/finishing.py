"""How attempts and tasks end, and begin again. Every function runs in a transaction that others share."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from afterwards.core import lifecycle
from afterwards.core.lifecycle import Settled
from afterwards.core.limits import UNLIMITED
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, Failure, Lease, State, Task
from afterwards.engines.sqlite import aside, files, reading, rows, statements, storing, uniqueness
from afterwards.engines.sqlite.connection import Connection

MOST_EXPIRED = 1000
"""Tasks that one claim cancels, so that no transaction takes long."""

MOST_FAILURES = FIRST_FAILURES + LAST_FAILURES

Success = tuple[int, int, str | None, int]
"""Counted failures and crashes, the result, the attempt."""

Ended = tuple[str, Task | None]
"""The id of a task that ended, and the task; None for one that succeeded, of which nobody needs to know more."""


def finish(connection: Connection, settled: Sequence[Settled]) -> list[Lease]:
    """Returns the refused."""
    refused: list[Lease] = []
    succeeded: list[Settled] = []
    for success, group in groupby(settled, _success):
        for some in statements.pieces([*group]):
            held = _succeed(connection, success, some) if success else _settle_each(connection, some)
            if success:
                succeeded += held
            if len(held) < len(some):
                refused += _refused(some, held)
    if succeeded and _is_any_waiting(connection):
        _decide_behind(connection, [(one.lease.task_id, None) for one in succeeded])
    return refused


def _refused(settled: Sequence[Settled], held: Sequence[Settled]) -> list[Lease]:
    """The leases that did not hold; one that is given twice is refused the second time."""
    left = {one.lease for one in held}
    refused: list[Lease] = []
    for one in settled:
        if one.lease not in left:
            refused.append(one.lease)
        left.discard(one.lease)
    return refused


def cancel(connection: Connection, ids: Sequence[str], reason: str) -> list[Task]:
    for id in ids:
        for row, task in reading.without_failures(connection, [id]):
            if task.unreadable:
                _cancel_unreadable(connection, row[-1], task, reason)
            else:
                put(connection, lifecycle.cancel(task, reason, connection.now))
    return reading.get(connection, ids)


def _cancel_unreadable(connection: Connection, seq: int, task: Task, reason: str) -> None:
    """Cancel a task without changing what cannot be read of its row."""
    connection.execute(statements.ASK_UNREADABLE_TO_STOP, (reason, seq))
    if connection.execute(statements.CANCEL_UNREADABLE, (connection.instant, reason, seq)).rowcount:
        _decide_behind(connection, [(task.id, lifecycle.cancel(task, reason, connection.now))])


def bring_back(connection: Connection, ids: Iterable[str]) -> None:
    """Let workers begin again what was set aside, where this version can read it."""
    for id in ids:
        for _, task in reading.without_failures(connection, [id]):
            if task.set_aside is None or task.unreadable:
                continue
            task = lifecycle.bring_back(task)
            if task.state is State.WAITING:  # what it waits for may have ended meanwhile
                before = reading.get(connection, [task.after or ""])
                task = lifecycle.follow(task, before[0] if before else None, connection.now)
            put(connection, task)


def requeue(connection: Connection, ids: Sequence[str]) -> list[Task]:
    queued = []
    for id in reading.in_the_order_stored(connection, ids):  # a task before those behind it
        for task in reading.get(connection, [id]):
            if task.state.finished and not task.plain and not task.unreadable and uniqueness.is_free(connection, task):
                queued.append(id)
                put(connection, lifecycle.requeue(task, connection.now))
                _revive_behind(connection, task)
    return reading.get(connection, queued)


def prune(connection: Connection, limit: int) -> int:
    keys = [(rows.raw(key),) for [key] in connection.execute(statements.OVER, (connection.instant, limit))]
    connection.executemany(statements.DELETE, keys)
    connection.executemany(statements.DELETE_FAILURES, keys)
    connection.executemany(statements.DELETE_ALIASES, keys)
    connection.execute(statements.DELETE_STARTS, (connection.instant,))
    files.release(connection, keys)
    return len(keys)


def is_any_over(connection: Connection) -> bool:
    return connection.execute(statements.ANY_OVER, (connection.instant,)).fetchone() is not None


def is_plain_success(settled: Settled) -> bool:
    """Whether all there is to store is that the task succeeded, and its result."""
    return not (settled.state is not State.SUCCEEDED or settled.failure or settled.then or settled.progress)


def _success(settled: Settled) -> Success | None:
    """What successes that one statement can store have in common; None for what needs more than that."""
    if not is_plain_success(settled):
        return None
    return settled.failed, settled.crashed, settled.result, settled.lease.attempt


def _succeed(connection: Connection, success: Success, settled: Sequence[Settled]) -> Sequence[Settled]:
    """What ``lifecycle.finish`` says of a success, in one statement for many. Returns those whose leases still held."""
    failed, crashed, result, attempt = success
    keys = [rows.key(one.lease.task_id) for one in settled]
    named = statements.padded(keys)
    found = connection.execute(statements.sized(statements.STILL_HELD, len(named)), (*named, attempt)).fetchall()
    connection.queued |= any(limit_key != UNLIMITED for _, limit_key in found)  # others may have waited for them
    values = (failed, crashed, connection.instant, result, *named, attempt)
    connection.execute(statements.sized(statements.SUCCEED, len(named)), values)
    if len(found) == len(settled):  # as most often
        return settled
    left = {key: one for key, one in zip(map(bytes, keys), settled, strict=True)}
    return [left[key] for key, _ in found]


def _settle_each(connection: Connection, settled: Sequence[Settled]) -> Sequence[Settled]:
    """Returns those whose leases still held."""
    held = [one for one in settled if _settle(connection, one)]
    for one in held:
        if one.then:
            storing.enqueue(connection, [one.then], None)
    return held


def _settle(connection: Connection, settled: Settled) -> bool:
    """Returns whether the lease still held."""
    row = connection.execute(statements.GET, (rows.key(settled.lease.task_id),)).fetchone()
    task = row and lifecycle.finish(reading.task_of(connection, row), settled, connection.now)
    if not task:
        return False
    if settled.failure:
        _add_failure(connection, task, settled.failure)
    put(connection, task)
    return True


def _add_failure(connection: Connection, task: Task, failure: Failure) -> None:
    """What ``lifecycle.with_failure`` says."""
    connection.execute(statements.INSERT_FAILURE, rows.from_failure(task.id, failure))
    if task.attempt <= MOST_FAILURES:  # as most often
        return
    key = rows.key(task.id)
    [count] = connection.execute(statements.COUNT_FAILURES, (key,)).fetchone()
    if count > MOST_FAILURES:
        connection.execute(statements.TRIM_FAILURES, (key, count - MOST_FAILURES, FIRST_FAILURES))
        connection.execute(statements.COUNT_LEFT_OUT, (count - MOST_FAILURES, key))


def expire(connection: Connection) -> None:
    """Cancel what was not begun in time, and those behind it."""
    for [key] in connection.execute(statements.OVERDUE, (connection.instant, MOST_EXPIRED)).fetchall():
        for row in connection.execute(statements.GET, (rows.raw(key),)).fetchall():
            task = reading.task_of(connection, row)
            if task.unreadable:
                aside.put(connection, row, task.unreadable)
            elif lifecycle.overdue(task, connection.now):  # it may have been cancelled for another one's sake
                put(connection, lifecycle.expire(task, connection.now))


def put(connection: Connection, task: Task) -> None:
    """Store a task as it stands now; when that ends it, decide on those behind it."""
    connection.execute(statements.UPDATE, rows.changed(task, connection.instant))
    connection.queued |= (task.state is State.QUEUED and task.set_aside is None) or (
        task.limit_key != UNLIMITED and task.state is not State.RUNNING  # others may have waited for it
    )
    if task.state.finished and _is_any_waiting(connection):
        _decide_behind(connection, [(task.id, task)])


def _is_any_waiting(connection: Connection) -> bool:
    return connection.execute(statements.ANY_WAITING).fetchone() is not None


def _decide_behind(connection: Connection, ended: Sequence[Ended]) -> None:
    """Decide on the tasks behind those that ended, and on those behind them in turn."""
    deciding = list(ended)
    for id, before in deciding:
        for row in connection.execute(statements.WAITING_BEHIND, (rows.key(id),)).fetchall():
            task = reading.task_of(connection, row)
            if task.unreadable:
                aside.put(connection, row, task.unreadable)
                continue
            task = lifecycle.follow(task, before, connection.now)
            connection.execute(statements.UPDATE, rows.changed(task, connection.instant))
            connection.queued |= task.state is State.QUEUED
            if task.state.finished:
                deciding.append((task.id, task))


def _revive_behind(connection: Connection, task: Task) -> None:
    """Bring back what was cancelled for the sake of a task, and what was for theirs."""
    revived = [task]
    for before in revived:
        found = connection.execute(statements.CANCELLED_BEHIND, (rows.key(before.id),)).fetchall()
        for behind in filter(lifecycle.cancelled_for_another, (reading.task_of(connection, row) for row in found)):
            if behind.unreadable or not uniqueness.is_free(connection, behind):
                continue
            revived.append(lifecycle.revive(behind))
            connection.execute(statements.UPDATE, rows.changed(revived[-1], connection.instant))
