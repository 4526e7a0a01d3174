"""How attempts and tasks end, and begin again. Every function runs in a transaction that others share."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from afterwards.core import lifecycle
from afterwards.core.lifecycle import Settled
from afterwards.core.limits import UNLIMITED
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, Failure, Lease, State, Task
from afterwards.engines.sqlite import rows, statements
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import duplicates, files, reading, set_aside, storing, successors
from afterwards.engines.sqlite.rows import Row

MOST_EXPIRED = 1000
"""Tasks that one claim cancels, so that no transaction takes long."""

MOST_FAILURES = FIRST_FAILURES + LAST_FAILURES

MOST_SUCCEEDED = 128
"""Successes that one statement stores; with all their values old versions of SQLite allow 999."""

Counted = tuple[int, int, int]
"""Failures, crashes and attempts of a task."""


class Piece(NamedTuple):
    """What came of a long list of tasks in one transaction."""

    done: int  # of the tasks that were named, from the first
    changed: Sequence[Task] = ()
    left_behind: bool = False  # not all behind them are decided on


def finish(connection: Connection, settled: Sequence[Settled]) -> list[Lease]:
    """Returns the refused."""
    once, again = _each_once(settled)
    held: list[Settled] = []
    succeeded: list[Settled] = []
    for counted, some in _by_statement(once).items():
        if counted is None:
            held += _settle_each(connection, some)
        else:
            succeeded += _succeed(connection, counted, some)
    if succeeded:
        successors.follow(connection, (successors.succeeded(one.lease.task_id) for one in succeeded))
    refused = [] if len(held) + len(succeeded) == len(once) else _refused(once, [*held, *succeeded])
    return [*refused, *finish(connection, again)] if again else refused


def _each_once(settled: Sequence[Settled]) -> tuple[Sequence[Settled], Sequence[Settled]]:
    """The first end of each lease, and those that were given beside it."""
    first = {one.lease: one for one in reversed(settled)}
    if len(first) == len(settled):
        return settled, ()
    return [one for one in settled if first[one.lease] is one], [one for one in settled if first[one.lease] is not one]


def _by_statement(settled: Sequence[Settled]) -> dict[Counted | None, list[Settled]]:
    """Successes together that one statement can store; under None what needs more than that."""
    groups: dict[Counted | None, list[Settled]] = {}
    for one in settled:
        counted = (one.failed, one.crashed, one.lease.attempt) if is_plain_success(one) else None
        groups.setdefault(counted, []).append(one)
    return groups


def _refused(settled: Sequence[Settled], held: Sequence[Settled]) -> list[Lease]:
    left = {one.lease for one in held}
    return [one.lease for one in settled if one.lease not in left]


def cancel(connection: Connection, ids: Sequence[str], reason: str) -> Piece:
    def one(row: Row, task: Task) -> None:
        if task.unreadable:
            _cancel_unreadable(connection, row[-1], task, reason)
        else:
            put(connection, lifecycle.cancel(task, reason, connection.now))

    return _piece(connection, ids, one)


def _cancel_unreadable(connection: Connection, seq: int, task: Task, reason: str) -> None:
    """Cancel a task without changing what cannot be read of its row."""
    connection.execute(statements.ASK_UNREADABLE_TO_STOP, (reason, seq))
    if connection.execute(statements.CANCEL_UNREADABLE, (connection.instant, reason, seq)).rowcount:
        successors.follow(connection, [successors.ended(lifecycle.cancel(task, reason, connection.now))])


def requeue(connection: Connection, ids: Sequence[str]) -> Piece:
    """Those that are queued; the ids are in the order stored, a task before those behind it."""
    queued: list[str] = []

    def one(row: Row, task: Task) -> None:
        if task.state.finished and not (task.plain or task.unreadable) and duplicates.is_free(connection, task):
            queued.append(task.id)
            again = lifecycle.requeue(task, connection.now)
            put(connection, again)
            successors.revive(connection, again)

    return _piece(connection, ids, one)._replace(changed=reading.get(connection, queued))


def _piece(connection: Connection, ids: Sequence[str], change: Callable[[Row, Task], None]) -> Piece:
    """Change tasks, up to the first behind which not all are decided on: the next one may be behind it, too."""
    for done, id in enumerate(ids):
        if done and connection.left_behind:
            return Piece(done, left_behind=True)
        for row, task in reading.without_failures(connection, [id]):
            change(row, task)
    return Piece(len(ids), left_behind=connection.left_behind)


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


def _succeed(connection: Connection, counted: Counted, settled: Sequence[Settled]) -> list[Settled]:
    """Store what ``lifecycle.finish`` says of successes. Returns those whose leases still held."""
    held: list[Settled] = []
    for some in statements.pieces(settled, MOST_SUCCEEDED):
        succeed = _Success(counted, some)
        held += some if succeed.all_in_one(connection) else succeed.those_held(connection)
    return held


class _Success:
    """Successes as values of statements."""

    def __init__(self, counted: Counted, settled: Sequence[Settled]) -> None:
        self._failed, self._crashed, self._attempt = counted
        self._settled = settled
        keys = [rows.key(one.lease.task_id) for one in settled]
        self._keys = statements.padded(keys)
        self._results: list[object] = [settled[0].result]
        if any(one.result != settled[0].result for one in settled):
            results = statements.padded([one.result for one in settled])
            self._results = [*chain.from_iterable(zip(self._keys, results, strict=True))]

    def all_in_one(self, connection: Connection) -> bool:
        """Store all, where all leases hold and nobody waits for a limit. Returns False when nothing was done."""
        values = (*self._values(connection), *self._keys, self._attempt, len(self._settled))
        return connection.execute_unseen(self._sized(statements.SUCCEED_ALL), values).rowcount > 0

    def those_held(self, connection: Connection) -> list[Settled]:
        held = self._sized(statements.STILL_HELD)
        found = dict(connection.execute(held, (*self._keys, self._attempt)).fetchall())
        connection.queued |= any(limit_key != UNLIMITED for limit_key in found.values())  # others may have waited
        connection.execute(self._sized(statements.SUCCEED), self._values(connection))
        return [one for one in self._settled if bytes(rows.key(one.lease.task_id)) in found]

    def _sized(self, statement: str) -> str:
        return statements.sized(statement, len(self._keys), max(1, len(self._results) // 2))

    def _values(self, connection: Connection) -> tuple[object, ...]:
        return self._failed, self._crashed, connection.instant, *self._results, *self._keys, self._attempt


def _settle_each(connection: Connection, settled: Sequence[Settled]) -> list[Settled]:
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
                set_aside.put(connection, row, task.unreadable)
            elif lifecycle.overdue(task, connection.now):  # it may have been cancelled for another one's sake
                put(connection, lifecycle.expire(task, connection.now))


def put(connection: Connection, task: Task) -> None:
    """Store a task as it stands now; when that ends it, decide on those behind it."""
    connection.execute(statements.UPDATE, rows.changed(task, connection.instant))
    connection.queued |= (task.state is State.QUEUED and task.set_aside is None) or (
        task.limit_key != UNLIMITED and task.state is not State.RUNNING  # others may have waited for it
    )
    if task.state.finished:
        successors.follow(connection, [successors.ended(task)])
