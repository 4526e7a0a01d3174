"""End attempts and tasks, and requeue them. Every function runs in a transaction that others share."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from afterwards.core import lifecycle, succession
from afterwards.core.limits import UNLIMITED
from afterwards.core.settling import Settled
from afterwards.core.tallies import Ends, ends_of
from afterwards.core.task import Lease, State, Task
from afterwards.engines.sqlite import placeholders, rows
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Connection, Look
from afterwards.engines.sqlite.io.operation import FunctionOperation
from afterwards.engines.sqlite.operations import changing, reading, storing, successors

MOST_EXPIRED = 1000
"""Tasks that one claim cancels, so that no transaction takes long."""

MOST_SUCCEEDED = 128
"""Successes that one statement stores. Old versions of SQLite allow 999 values in one statement."""

STILL_HELD = """
    SELECT id, limit_key FROM afterwards_tasks INDEXED BY afterwards_id
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

SUCCEED = """
    UPDATE afterwards_tasks INDEXED BY afterwards_id SET
        state = 'succeeded', failed = ?, crashed = ?, suspect = 0, losses = 0, lease_until = NULL, finished_at = ?,
        cancel_requested = NULL, reason = NULL, result = {result}
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

# Change no row if any task is not leased, or has a limit that other tasks may wait for.
SUCCEED_ALL = f"""
    {SUCCEED} AND (
        SELECT count(*) FROM afterwards_tasks INDEXED BY afterwards_id
        WHERE id IN ({{places}}) AND attempt = ? AND state = 'running' AND limit_key = ''
    ) = ?
"""

ASK_UNREADABLE_TO_STOP = "UPDATE afterwards_tasks SET cancel_requested = ? WHERE seq = ? AND state = 'running'"

CANCEL_UNREADABLE = """
    UPDATE afterwards_tasks SET
        state = 'cancelled', aside_from = NULL, set_aside = NULL, run_at = NULL, finished_at = ?, reason = ?
    WHERE seq = ? AND state NOT IN ('running', 'succeeded', 'failed', 'cancelled')
"""

OVERDUE = f"""
    SELECT {COLUMNS} FROM afterwards_tasks
    WHERE seq IN (
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_expiring
        WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at <= ?
            AND state NOT IN ('running', 'unreadable')
        ORDER BY expires_at LIMIT ?
    )
    ORDER BY seq
"""

Counted = tuple[int, int, int]
"""Failures, crashes and attempts of a task."""


class Finish(FunctionOperation[list[Lease]]):
    """Store how attempts ended."""

    shares_commit = True


class Piece(NamedTuple):
    """The result of one transaction's part of a long list of tasks."""

    done: int  # of the given tasks, counted from the first
    changed: Sequence[Task] = ()
    left_behind: bool = False  # some tasks behind them are not decided on yet


def finish(connection: Connection, settled: Sequence[Settled]) -> list[Lease]:
    """Store how attempts ended. Returns the refused leases."""
    once, again = _each_once(settled)
    held: list[Settled] = []
    succeeded: list[Settled] = []
    for counted, some in _by_statement(once).items():
        if counted is None:
            held += _settle_each(connection, some)
        else:
            succeeded += _succeed(connection, counted, some)
    if succeeded:
        successors.follow(connection, {}, succeeded=[one.lease.task_id for one in succeeded])
    connection.note_ends(Ends(succeeded=len(succeeded)))
    if held:
        connection.note_ends(ends_of(held))
    changing.add_logs(connection, chain(held, succeeded))
    refused = [] if len(held) + len(succeeded) == len(once) else _refused(connection, once, [*held, *succeeded])
    return [*refused, *finish(connection, again)] if again else refused


def _each_once(settled: Sequence[Settled]) -> tuple[Sequence[Settled], Sequence[Settled]]:
    """Return the first end of each lease, and the repeated ones."""
    first = {one.lease: one for one in reversed(settled)}
    if len(first) == len(settled):
        return settled, ()
    return [one for one in settled if first[one.lease] is one], [one for one in settled if first[one.lease] is not one]


def _by_statement(settled: Sequence[Settled]) -> dict[Counted | None, list[Settled]]:
    """Group successes that one statement can store; the key None holds those that need more than that."""
    groups: dict[Counted | None, list[Settled]] = {}
    for one in settled:
        counted = (one.failed, one.crashed, one.lease.attempt) if is_plain_success(one) else None
        groups.setdefault(counted, []).append(one)
    return groups


def _refused(connection: Connection, settled: Sequence[Settled], held: Sequence[Settled]) -> list[Lease]:
    """Return the leases that did not hold. Those of attempts that were lost before are recorded."""
    left = {one.lease for one in held}
    refused = [one for one in settled if one.lease not in left]
    found = reading.by_key(connection, [rows.key(one.lease.task_id) for one in refused])
    tasks = {task.id: task for task in reading.to_tasks(connection, found, failures=reading.LISTED_FAILURES)}
    late = succession.late_all(tasks, refused, connection.now)
    known = {task.id: {*task.failures} for task in tasks.values()}
    new = [(task, failure) for task in late for failure in task.failures if failure not in known[task.id]]
    changing.add_failures(connection, new)
    return [one.lease for one in refused]


def cancel(connection: Connection, ids: Sequence[str], reason: str) -> Piece:
    """Cancel tasks, with those behind them. It cancels fewer than were given if too many are behind them."""
    named = reading.found(connection, ids)
    tasks = [task for _, task in named.values() if not task.unreadable]
    ending = [task.id for task in tasks if task.state.pending]
    waiting = successors.waiting_behind(connection, ending)
    some = waiting[: successors.room(connection)]
    if len(waiting) > len(some) and len(ids) > 1:
        return cancel(connection, ids[: len(ids) // 2], reason)
    readable = successors.readable(connection, some)
    changed = succession.cancel_all(tasks, readable, reason, connection.now)
    _put_with_those_behind(connection, changed, {*ending}, cut=len(waiting) > len(some))
    for row, task in named.values():
        if task.unreadable:
            _cancel_unreadable(connection, row[-1], task, reason)
    return Piece(len(ids), left_behind=connection.left_behind)


def _cancel_unreadable(connection: Connection, seq: int, task: Task, reason: str) -> None:
    """Cancel a task without changing the unreadable parts of its row."""
    connection.execute(ASK_UNREADABLE_TO_STOP, (reason, seq))
    if connection.execute(CANCEL_UNREADABLE, (connection.instant, reason, seq)).rowcount:
        successors.follow(connection, {task.id: lifecycle.cancel(task, reason, connection.now)})


def requeue(connection: Connection, ids: Sequence[str]) -> Piece:
    """Queue tasks again, given in the order stored. It queues fewer than were given if too many come back with them."""
    tasks = [task for _, task in reading.found(connection, ids).values() if not task.unreadable]
    cancelled = successors.cancelled_behind(connection, [task.id for task in tasks if task.state.finished])
    some = cancelled[: successors.room(connection)]
    if len(cancelled) > len(some) and len(ids) > 1:
        return requeue(connection, ids[: len(ids) // 2])
    behind = [task for _, task in some if not task.unreadable]
    taken = successors.taken_keys(connection, [*tasks, *behind])
    requeued = succession.requeue_all(tasks, behind, taken, connection.now)
    changing.put_all(connection, requeued.changed)
    connection.decided += len(some)
    if len(cancelled) > len(some):
        successors.note_left_cancelled(connection, requeued.changed, some)
    return Piece(len(ids), reading.get(connection, requeued.queued), connection.left_behind)


def start_now(connection: Connection, ids: Sequence[str]) -> Piece:
    """Queue tasks whose time has not come yet, given in the order stored."""
    tasks = [task for _, task in reading.found(connection, ids).values() if not task.unreadable]
    started = [after for task in tasks if (after := lifecycle.start_now(task, connection.now)) is not task]
    changing.put_all(connection, started)
    return Piece(len(ids), reading.get(connection, [task.id for task in started]))


def bring_back(connection: Connection, ids: Iterable[str]) -> None:
    """Let workers start tasks that were set aside, if this version can read them."""
    tasks = [task for _, task in reading.found(connection, ids).values() if task.set_aside and not task.unreadable]
    before = reading.found(connection, [task.after for task in tasks if task.after and task.state is State.WAITING])
    standing = {id: task for id, (_, task) in before.items()}
    _put_and_follow(connection, succession.bring_back_all(tasks, standing, connection.now))


def is_plain_success(settled: Settled) -> bool:
    """Return True if only the success of the task and its result have to be stored."""
    return not (settled.state is not State.SUCCEEDED or settled.failure or settled.then or settled.progress)


def _succeed(connection: Connection, counted: Counted, settled: Sequence[Settled]) -> list[Settled]:
    """Store successes as ``lifecycle.finish`` does. Returns those whose leases still held."""
    held: list[Settled] = []
    for some in placeholders.pieces(settled, MOST_SUCCEEDED):
        succeed = _Success(counted, some)
        held += some if succeed.all_in_one(connection) else succeed.those_held(connection)
    return held


class _Success:
    """Successes in the form of a statement's values."""

    def __init__(self, counted: Counted, settled: Sequence[Settled]) -> None:
        self._failed, self._crashed, self._attempt = counted
        self._settled = settled
        keys = [rows.key(one.lease.task_id) for one in settled]
        self._keys = placeholders.padded(keys)
        self._results: list[object] = [settled[0].result]
        if any(one.result != settled[0].result for one in settled):
            results = placeholders.padded([one.result for one in settled])
            self._results = [*chain.from_iterable(zip(self._keys, results, strict=True))]

    def all_in_one(self, connection: Connection) -> bool:
        """Store all if all leases hold and no task waits for a limit. Returns False if nothing was stored."""
        values = (*self._values(connection), *self._keys, self._attempt, len(self._settled))
        return connection.execute_unseen(self._sized(SUCCEED_ALL), values).rowcount > 0

    def those_held(self, connection: Connection) -> list[Settled]:
        held = self._sized(STILL_HELD)
        found = dict(connection.execute(held, (*self._keys, self._attempt)).fetchall())
        connection.queued |= any(limit_key != UNLIMITED for limit_key in found.values())  # others may have waited
        connection.execute(self._sized(SUCCEED), self._values(connection))
        return [one for one in self._settled if bytes(rows.key(one.lease.task_id)) in found]

    def _sized(self, statement: str) -> str:
        return placeholders.sized(statement, len(self._keys), max(1, len(self._results) // 2))

    def _values(self, connection: Connection) -> tuple[object, ...]:
        return self._failed, self._crashed, connection.instant, *self._results, *self._keys, self._attempt


def _settle_each(connection: Connection, settled: Sequence[Settled]) -> Sequence[Settled]:
    """Store ends that need several statements each. Returns those whose leases still held."""
    found = reading.by_key(connection, [rows.key(one.lease.task_id) for one in settled])
    tasks = {task.id: task for row in found for task in [reading.task_of(connection, row)]}
    finished = succession.finish_all(tasks, settled, connection.now)
    after = {task.id: task for task in finished.changed}
    failures = [(after[one.lease.task_id], one.failure) for one in finished.accepted if one.failure]
    changing.add_failures(connection, failures)
    _put_and_follow(connection, finished.changed)
    if then := [one.then for one in finished.accepted if one.then]:
        storing.enqueue(connection, then, None)
    return finished.accepted


def look_without_overdue(connection: Connection) -> Look:
    """Cancel tasks that did not start in time. Returns the work that there is now.

    If some are overdue still, there were very many: none of them may start, so the caller has to look again later.
    """
    look = connection.look()
    if look.overdue:
        _expire(connection)
        look = connection.look()
        connection.queued |= look.overdue
    return look


def _expire(connection: Connection) -> None:
    """Cancel tasks that did not start in time, and those behind them."""
    found = connection.execute(OVERDUE, (connection.instant, MOST_EXPIRED)).fetchall()
    overdue = successors.readable(connection, ((row, reading.task_of(connection, row)) for row in found))
    waiting = successors.waiting_behind(connection, [task.id for task in overdue])
    some = waiting[: successors.room(connection)]
    changed = succession.expire_all(overdue, successors.readable(connection, some), connection.now)
    _put_with_those_behind(connection, changed, {task.id for task in overdue}, cut=len(waiting) > len(some))


def _put_with_those_behind(connection: Connection, changed: Sequence[Task], named: set[str], *, cut: bool) -> None:
    """Store ended tasks and the decisions on those behind them. With ``cut``, not all of those were loaded."""
    changing.put_all(connection, changed)
    connection.decided += sum(task.id not in named for task in changed)
    if cut:
        successors.note_left(connection, [task.id for task in changed if task.state.finished])


def _put_and_follow(connection: Connection, changed: Sequence[Task]) -> None:
    """Store tasks with their new values, and decide on those behind the ones that ended."""
    changing.put_all(connection, changed)
    if ended := {task.id: task for task in changed if task.state.finished}:
        successors.follow(connection, ended)
