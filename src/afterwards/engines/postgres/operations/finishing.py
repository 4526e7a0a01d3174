"""End attempts and tasks, and requeue them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from afterwards.core import lifecycle, succession
from afterwards.core.limits import UNLIMITED
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, State, Task
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import changing, reading, storing, successors
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row, as_json, known_ids, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

MOST_EXPIRED = 1000
"""Tasks that one claim cancels, so that no transaction takes long."""

# A translation of `lifecycle.finish` for plain successes.
SUCCEED = f"""
    UPDATE afterwards_tasks t SET
        state = 'succeeded', failed = new.failed, crashed = new.crashed, suspect = false, losses = 0,
        lease_until = NULL, finished_at = %s, cancel_requested = NULL, reason = NULL, result = new.result
    FROM {recordset("new", ["id", "attempt", "failed", "crashed", "result"])}
    WHERE t.id = new.id AND t.attempt = new.attempt AND t.state = 'running'
    RETURNING t.id::text, t.attempt, t.limit_key
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
    by_call: list[list[Lease]] = [[] for _ in calls]
    for place in sorted(refused):
        number, one = ends[place]
        by_call[number].append(one.lease)
    return by_call


def _finish_each_once(work: Work, settled: Sequence[Settled]) -> Operation[set[Lease]]:
    """Return the leases that held."""
    known = [one for one in settled if rows.is_uuid(one.lease.task_id)]
    plain = sorted((one for one in known if _is_plain_success(one)), key=lambda one: one.lease)
    others = [one for one in known if not _is_plain_success(one)]
    held = yield from _settle_each(work, others)
    if plain:
        held |= yield from _succeed(work, plain)
    return held


def _is_plain_success(settled: Settled) -> bool:
    """Return True if only the success of the task and its result have to be stored."""
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
        }
        for one in settled
    )
    found = yield from fetch(SUCCEED, work.instant, ends)
    held = {Lease(id, attempt) for id, attempt, _ in found}
    work.queued |= any(limit_key != UNLIMITED for _, _, limit_key in found)  # others may have waited
    if held:
        yield from successors.follow(work, {}, succeeded=[lease.task_id for lease in held])
    return held


def _settle_each(work: Work, settled: Sequence[Settled]) -> Operation[set[Lease]]:
    """Store ends of any kind. Returns the leases that held."""
    if not settled:
        return set()
    found = yield from fetch(successors.LOCK_TASKS, [one.lease.task_id for one in settled])
    tasks = {task.id: task for task in map(parsing.to_task, found)}
    finished = succession.finish_all(tasks, settled, work.now)
    after = {task.id: task for task in finished.changed}
    yield from _put_and_follow(work, finished.changed)
    yield from changing.add_failures(
        (after[one.lease.task_id], one.failure) for one in finished.accepted if one.failure
    )
    if then := [one.then for one in finished.accepted if one.then]:
        yield from storing.enqueue_or_raise(work, then)
    return {one.lease for one in finished.accepted}


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
