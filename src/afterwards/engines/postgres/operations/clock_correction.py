"""Correct times that were written while the clock was ahead.

No index tells when tasks ended, only when their retention is over. So it is asked of the record that is kept for the
longest: if all have the same retention, that is the one that ended last. All finished tasks are read only if something
is wrong. While workers ran, there is more than records: attempts were counted, and workers were seen. These are
corrected after the records, so that an interrupted correction is done again.
"""

from datetime import timedelta

from afterwards.core import lifecycle
from afterwards.core.clock_correction import CORRECTION, corrected
from afterwards.core.serialization.files import UNCLAIMED
from afterwards.core.task import Task
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import set_aside, tallying
from afterwards.engines.postgres.rows import COLUMNS, as_json, instant_or_none, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

AT_ONCE = 1000
"""Tasks that one transaction corrects, finished tasks that it reads, and files that it corrects."""

BEFORE_ALL = -(2**63)
"""A place before those of all tasks."""

_CHANGED = ("run_at", "expires_at", "lease_until", "created_at", "since")

_SCHEDULED = "state = 'scheduled' AND run_at > %s AND since > %s"
_WAITING = "state = 'waiting' AND run_at > %s AND since > %s"
_RUNNING = "state = 'running' AND lease_until > %s"
_EXPIRING = """
    expires_at IS NOT NULL AND finished_at IS NULL AND expires_at > %s AND created_at > %s AND aside_from IS NULL
"""
_QUEUED = "state = 'queued' AND coalesce(since, created_at) > %s"

WRONG = f"""
    SELECT EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_SCHEDULED})
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_WAITING})
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_RUNNING})
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_EXPIRING})
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_QUEUED})
        OR EXISTS (SELECT 1 FROM afterwards_schedules WHERE after > %s)
        OR EXISTS (SELECT 1 FROM afterwards_workers WHERE seen_at > %s)
        OR EXISTS (SELECT 1 FROM afterwards_starts WHERE at > %s)
        OR EXISTS (SELECT 1 FROM afterwards_tallies WHERE minute > %s)
        OR EXISTS (SELECT 1 FROM afterwards_files WHERE until > %s)
        OR EXISTS (
            SELECT 1 FROM (
                SELECT finished_at FROM afterwards_tasks WHERE finished_at IS NOT NULL
                ORDER BY finished_at + coalesce(retention, 604800000000) DESC LIMIT 1
            ) AS kept_longest
            WHERE finished_at > %s
        )
"""

NEXT_PLACES = """
    SELECT count(*), max(seq) FROM (SELECT seq FROM afterwards_tasks WHERE seq > %s ORDER BY seq LIMIT %s) AS next
"""

# It translates `lifecycle.put_right`.
PUT_FINISHED_RIGHT = """
    UPDATE afterwards_tasks SET
        created_at = CASE WHEN created_at > %s THEN %s ELSE created_at END,
        started_at = CASE WHEN started_at > %s THEN %s ELSE started_at END,
        finished_at = %s
    WHERE seq = ANY (ARRAY(
        SELECT seq FROM afterwards_tasks WHERE seq > %s AND seq <= %s AND finished_at > %s
        ORDER BY seq FOR NO KEY UPDATE
    ))
"""

# Those that another transaction has locked are corrected or deleted by that one.
PUT_FILES_RIGHT = """
    UPDATE afterwards_files SET until = %s WHERE id = ANY (ARRAY(
        SELECT id FROM afterwards_files WHERE until > %s LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
    ))
"""

LOCK_WRONG = f"""
    SELECT {COLUMNS}, t.since FROM afterwards_tasks t
    WHERE t.seq IN (
        SELECT seq FROM afterwards_tasks WHERE {_SCHEDULED}
        UNION
        SELECT seq FROM afterwards_tasks WHERE {_WAITING}
        UNION
        SELECT seq FROM afterwards_tasks WHERE {_RUNNING}
        UNION
        SELECT seq FROM afterwards_tasks WHERE {_EXPIRING}
        UNION
        SELECT seq FROM afterwards_tasks WHERE {_QUEUED}
    )
    ORDER BY t.seq LIMIT {AT_ONCE} FOR NO KEY UPDATE
"""

PUT_TASKS_RIGHT = f"""
    UPDATE afterwards_tasks t SET {", ".join(f"{column} = new.{column}" for column in _CHANGED)}
    FROM {recordset("new", ["id", *_CHANGED])} WHERE t.id = new.id
"""

PUT_SCHEDULES_RIGHT = "UPDATE afterwards_schedules SET after = %s WHERE after > %s"

PUT_WORKERS_RIGHT = "UPDATE afterwards_workers SET seen_at = %s WHERE seen_at > %s"

PUT_STARTS_RIGHT = "DELETE FROM afterwards_starts WHERE at > %s"


def is_any_wrong(work: Work, lease: timedelta) -> Operation[bool]:
    latest = work.after(CORRECTION)
    until = work.after(CORRECTION + UNCLAIMED)
    [(found,)] = yield from fetch(WRONG, *_tasks(work, lease), latest, latest, latest, latest, until, latest)
    return bool(found)


def put_finished_right(work: Work, beyond: int) -> Operation[int | None]:
    """Correct the finished tasks among those at the next places. Returns the last place, None if it was the last."""
    [(count, last)] = yield from fetch(NEXT_PLACES, beyond, AT_ONCE)
    if count:
        latest, now = work.after(CORRECTION), work.instant
        yield from change(PUT_FINISHED_RIGHT, latest, now, latest, now, now, beyond, last, latest)
    return last if count == AT_ONCE else None


def put_right(work: Work, lease: timedelta) -> Operation[bool]:
    """Correct up to ``AT_ONCE`` tasks and files, and everything else. Returns True if there may be more of them."""
    latest = work.after(CORRECTION)
    yield from change(PUT_SCHEDULES_RIGHT, work.instant, latest)
    yield from change(PUT_WORKERS_RIGHT, work.instant, latest)
    yield from change(PUT_STARTS_RIGHT, latest)
    yield from tallying.put_right(work, latest)
    until, no_longer = work.after(UNCLAIMED), work.after(CORRECTION + UNCLAIMED)
    files = yield from change(PUT_FILES_RIGHT, until, no_longer, AT_ONCE)
    found = yield from fetch(LOCK_WRONG, *_tasks(work, lease))
    tasks = [(row[:-1], parsing.to_task(row[:-1]), row[-1]) for row in found]
    yield from set_aside.put(work, [(row, task.unreadable) for row, task, _ in tasks if task.unreadable])
    right = [_put_right(work, task, since, lease) for _, task, since in tasks if not task.unreadable]
    yield from change(PUT_TASKS_RIGHT, as_json(right))
    work.queued = True  # the next due task may be due earlier than before
    return AT_ONCE in (len(found), files)


def _put_right(work: Work, task: Task, waits_since: int | None, lease: timedelta) -> dict[str, object]:
    """Return the corrected instants of a task."""
    since = None if waits_since is None else rows.to_instant(min(waits_since, rows.LATEST))
    right = lifecycle.put_right(task, since, work.now, lease)
    return {
        "id": right.id,
        "run_at": instant_or_none(right.run_at),
        "expires_at": instant_or_none(right.expires_at),
        "lease_until": instant_or_none(right.lease_until),
        "created_at": rows.from_instant(right.created_at),
        "since": instant_or_none(since and corrected(since, work.now)),
    }


def _tasks(work: Work, lease: timedelta) -> tuple[int, ...]:
    """Return the values of the conditions that find tasks."""
    latest, longest = work.after(CORRECTION), work.after(CORRECTION + lease)
    return latest, latest, latest, latest, longest, latest, latest, latest
