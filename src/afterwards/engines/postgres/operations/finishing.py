"""End attempts and tasks, and requeue them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from afterwards.core import lifecycle, succession, tallies
from afterwards.core.limits import UNLIMITED
from afterwards.core.settling import Settled
from afterwards.core.task import Failure, FailureKind, Lease, State, Task
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import changing, reading, storing, successors, tallying
from afterwards.engines.postgres.operations.changing import PUT_LOGS
from afterwards.engines.postgres.operations.successors import LOCK_TASKS
from afterwards.engines.postgres.operations.tallying import COUNT_HELD
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row, as_json, known_ids, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch, fetch_all

MOST_EXPIRED = 1000
"""Tasks that one claim cancels, so that no transaction takes long."""

# A translation of `lifecycle.finish` for plain successes. All that an end needs is in one statement, because many tasks
# end like this.
SUCCEED = f"""
    WITH locked AS MATERIALIZED (
        SELECT t.seq, new.* FROM {recordset("new", ["id", "attempt", "failed", "crashed", "result"], lines="text")}
        JOIN afterwards_tasks t ON t.id = new.id
        ORDER BY t.seq FOR NO KEY UPDATE OF t
    ), held AS (
        UPDATE afterwards_tasks t SET
            state = 'succeeded', failed = locked.failed, crashed = locked.crashed, suspect = false, losses = 0,
            lease_until = NULL, finished_at = {{now}}, cancel_requested = NULL, reason = NULL, result = locked.result
        FROM locked WHERE t.seq = locked.seq AND t.attempt = locked.attempt AND t.state = 'running'
        RETURNING t.id, t.attempt, t.limit_key, locked.lines
    ), counted AS ({COUNT_HELD}), logged AS (
        INSERT INTO afterwards_logs (task, attempt, lines)
        SELECT id, attempt, lines FROM held WHERE lines IS NOT NULL {PUT_LOGS}
    )
    SELECT id::text, attempt, limit_key FROM held
"""

# Those that end in any other way, with locks on all: so that all calls lock in one order.
LOCK_ENDING = f"""
    WITH locked AS MATERIALIZED ({LOCK_TASKS}) SELECT * FROM locked WHERE id = ANY (%s::text[])
"""

LOCK_STANDING = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t
    WHERE t.id IN (
        SELECT id FROM unnest(%s::uuid[]) AS id UNION SELECT task FROM afterwards_aliases WHERE id = ANY (%s::uuid[])
    )
    ORDER BY t.seq FOR NO KEY UPDATE
"""

CANCEL_UNREADABLE = """
    UPDATE afterwards_tasks SET
        state = 'cancelled', aside_from = NULL, set_aside = NULL, run_at = NULL, finished_at = %s, reason = %s
    WHERE seq = ANY (%s::bigint[]) AND state NOT IN ('running', 'succeeded', 'failed', 'cancelled')
    RETURNING id::text
"""

ASK_UNREADABLE_TO_STOP = """
    UPDATE afterwards_tasks SET cancel_requested = %s WHERE seq = ANY (%s::bigint[]) AND state = 'running'
"""

LOCK_OVERDUE = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t
    WHERE t.expires_at IS NOT NULL AND t.finished_at IS NULL AND t.expires_at <= %s
        AND t.state NOT IN ('running', 'unreadable')
    ORDER BY t.expires_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""


class Piece(NamedTuple):
    """The result of one transaction's part of a long list of tasks."""

    done: int  # of the given tasks, counted from the first
    changed: Sequence[Task] = ()
    left_behind: bool = False  # some tasks behind them are not decided on yet


def finish(work: Work, calls: Sequence[Sequence[Settled]]) -> Operation[list[list[Lease]]]:
    """Store how attempts ended, for several calls. Returns the refused leases of each."""
    ends = [(number, one) for number, call in enumerate(calls) for one in call]
    left: Sequence[int] = range(len(ends))
    refused: list[int] = []
    while left:
        first: dict[Lease, int] = {}
        for place in left:
            first.setdefault(ends[place][1].lease, place)
        held = yield from _finish_each_once(work, [ends[place][1] for place in first.values()])
        refused += [place for lease, place in first.items() if lease not in held]
        now = {*first.values()}
        left = [place for place in left if place not in now]  # the second end of a lease is decided on after the first
    yield from _note_late(work, [ends[place][1] for place in sorted(refused)])
    by_call: list[list[Lease]] = [[] for _ in calls]
    for place in sorted(refused):
        number, one = ends[place]
        by_call[number].append(one.lease)
    return by_call


def _finish_each_once(work: Work, settled: Sequence[Settled]) -> Operation[set[Lease]]:
    """Return the leases that held."""
    known = [one for one in settled if rows.is_uuid(one.lease.task_id)]
    plain = [one for one in known if _is_plain_success(one)]
    others = [one for one in known if not _is_plain_success(one)]
    held = yield from _settle_each(work, others, also=plain)
    if plain:
        held |= yield from _succeed(work, plain)
    return held


def _is_plain_success(settled: Settled) -> bool:
    """Return True if only the success of the task, its result and its log lines have to be stored."""
    return not (settled.state is not State.SUCCEEDED or settled.failure or settled.then or settled.progress)


def _succeed(work: Work, settled: Sequence[Settled]) -> Operation[set[Lease]]:
    """Store plain successes. Returns the leases that held."""
    ends = as_json(
        {
            "id": one.lease.task_id,
            "attempt": one.lease.attempt,
            "failed": one.failed,
            "crashed": one.crashed,
            "result": one.result,
            "lines": rows.from_logs(one.logs),
        }
        for one in settled
    )
    ids = [one.lease.task_id for one in settled]
    found, behind = yield from fetch_all((SUCCEED, (ends,)), successors.next_behind(work, ids))
    held = {Lease(id, attempt) for id, attempt, _ in found}
    yield from changing.trim_logs(one.lease for one in settled if one.logs and one.lease in held)
    work.queued |= any(limit_key != UNLIMITED for _, _, limit_key in found)  # others may have waited
    yield from successors.follow_successes(work, [lease.task_id for lease in held], behind)
    return held


def _settle_each(work: Work, settled: Sequence[Settled], also: Sequence[Settled]) -> Operation[set[Lease]]:
    """Store ends of any kind. Returns the leases that held. It locks the tasks of ``also``, too."""
    if not settled:
        return set()
    ids = [one.lease.task_id for one in settled]
    found = yield from fetch(LOCK_ENDING, [*ids, *(one.lease.task_id for one in also)], ids)
    tasks = {task.id: task for task in map(parsing.to_task, found)}
    finished = succession.finish_all(tasks, settled, work.now)
    after = {task.id: task for task in finished.changed}
    yield from _put_and_follow(work, finished.changed)
    yield from changing.add_failures(
        (after[one.lease.task_id], one.failure) for one in finished.accepted if one.failure
    )
    yield from changing.add_logs((one.lease, one.logs) for one in finished.accepted)
    yield from tallying.count(work, tallies.ends_of(finished.accepted))
    if then := [one.then for one in finished.accepted if one.then]:
        yield from storing.enqueue_or_raise(work, then)
    return {one.lease for one in finished.accepted}


def _note_late(work: Work, refused: Sequence[Settled]) -> Operation[None]:
    """Record those refused ends whose attempts were recorded as crashed."""
    late = [one for one in refused if not one.lost and rows.is_uuid(one.lease.task_id)]
    if not late:
        return
    found = yield from reading.to_tasks((yield from fetch(LOCK_TASKS, [one.lease.task_id for one in late])))
    tasks = {task.id: task for task in found}
    changed = succession.late_all(tasks, late, work.now)
    yield from changing.add_failures((after, one) for after in changed for one in _added(tasks[after.id], after))


def _added(before: Task, after: Task) -> list[Failure]:
    return [one for one in after.failures if one.kind is FailureKind.LATE and one not in before.failures]


def cancel(work: Work, ids: Sequence[str], reason: str) -> Operation[Piece]:
    """Cancel tasks, with those behind them. It cancels fewer than were given if too many are behind them."""
    found = yield from _lock(work, ids)
    tasks = [task for _, task in found if not task.unreadable]
    ending = [task.id for task in tasks if task.state.pending]
    waiting = yield from successors.waiting_behind(work, ending)
    some = waiting[: successors.room(work)]
    if len(waiting) > len(some) and len(ids) > 1:
        return (yield from cancel(work, ids[: len(ids) // 2], reason))
    behind = yield from successors.readable(work, some)
    changed = succession.cancel_all(tasks, behind, reason, work.now)
    yield from _put_with_those_behind(work, changed, {*ending}, cut=len(waiting) > len(some))
    if unreadable := {row[SEQ]: task for row, task in found if task.unreadable}:
        yield from _cancel_unreadable(work, unreadable, reason)
    return Piece(len(ids), left_behind=work.left_behind)


def _cancel_unreadable(work: Work, tasks: dict[int, Task], reason: str) -> Operation[None]:
    """Cancel tasks without changing the unreadable parts of their rows."""
    yield from change(ASK_UNREADABLE_TO_STOP, reason, [*tasks])
    cancelled = {id for [id] in (yield from fetch(CANCEL_UNREADABLE, work.instant, reason, [*tasks]))}
    ended = {task.id: lifecycle.cancel(task, reason, work.now) for task in tasks.values() if task.id in cancelled}
    if ended:
        yield from successors.follow(work, ended)


def requeue(work: Work, ids: Sequence[str]) -> Operation[Piece]:
    """Queue tasks again, given in the order stored. It queues fewer than were given if too many come back with them."""
    found = yield from _lock(work, ids)
    tasks = [task for _, task in found if not task.unreadable]
    cancelled = yield from successors.cancelled_behind(work, [task.id for task in tasks if task.state.finished])
    some = cancelled[: successors.room(work)]
    if len(cancelled) > len(some) and len(ids) > 1:
        return (yield from requeue(work, ids[: len(ids) // 2]))
    behind = [task for task in map(parsing.to_task, some) if not task.unreadable]
    taken = yield from successors.taken_keys([*tasks, *behind])
    requeued = succession.requeue_all(tasks, behind, taken, work.now)
    yield from changing.put_all(work, requeued.changed)
    work.decided += len(some)
    if len(cancelled) > len(some):
        yield from successors.note_left_cancelled(work, requeued.changed, some)
    return Piece(len(ids), (yield from reading.get(requeued.queued)), work.left_behind)


def start_now(work: Work, ids: Sequence[str]) -> Operation[Piece]:
    """Queue tasks whose time has not come yet, given in the order stored."""
    tasks = [task for _, task in (yield from _lock(work, ids)) if not task.unreadable]
    started = [after for task in tasks if (after := lifecycle.start_now(task, work.now)) is not task]
    yield from changing.put_all(work, started)
    return Piece(len(ids), (yield from reading.get([task.id for task in started])))


def bring_back(work: Work, ids: Iterable[str]) -> Operation[None]:
    """Let workers start tasks that were set aside, if this version can read them."""
    aside = [task for _, task in (yield from _lock(work, [*ids])) if task.set_aside and not task.unreadable]
    if not aside:
        return
    after = [task.after for task in aside if task.after and task.state is State.WAITING]
    before = {task.id: task for _, task in (yield from _lock(work, after))}
    yield from _put_and_follow(work, succession.bring_back_all(aside, before, work.now))


def expire(work: Work) -> Operation[bool]:
    """Cancel tasks that did not start in time, and those behind them. Returns True if there are more."""
    found = yield from fetch(LOCK_OVERDUE, work.instant, MOST_EXPIRED)
    overdue = yield from successors.readable(work, sorted(found, key=lambda row: row[SEQ]))
    waiting = yield from successors.waiting_behind(work, [task.id for task in overdue])
    some = waiting[: successors.room(work)]
    behind = yield from successors.readable(work, some)
    changed = succession.expire_all(overdue, behind, work.now)
    yield from _put_with_those_behind(work, changed, {task.id for task in overdue}, cut=len(waiting) > len(some))
    return len(found) == MOST_EXPIRED


def _lock(work: Work, ids: Sequence[str]) -> Operation[list[tuple[Row, Task]]]:
    """Lock and return the tasks that these ids stand for, in the order stored."""
    known = known_ids(ids)
    found = (yield from fetch(LOCK_STANDING, known, known)) if known else []
    tasks = [(row, parsing.to_task(row)) for row in found]
    work.note_locked(task for _, task in tasks)
    return tasks


def _put_with_those_behind(work: Work, changed: Sequence[Task], named: set[str], *, cut: bool) -> Operation[None]:
    """Store ended tasks and the decisions on those behind them. With ``cut``, not all of those were loaded."""
    yield from changing.put_all(work, changed)
    work.decided += sum(task.id not in named for task in changed)
    if cut:
        yield from successors.note_left(work, [task.id for task in changed if task.state.finished])


def _put_and_follow(work: Work, changed: Sequence[Task]) -> Operation[None]:
    """Store tasks with their new values, and decide on those behind the ones that ended."""
    yield from changing.put_all(work, changed)
    if ended := {task.id: task for task in changed if task.state.finished}:
        yield from successors.follow(work, ended)
