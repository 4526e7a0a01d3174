"""Correct stored instants after a clock correction. Every function runs in a transaction that others share.

No index tells when tasks ended, only when their retention is over. So it is asked of the record that is kept for the
longest: if all have the same retention, that is the one that ended last. All finished tasks are read only if something
is wrong. While workers ran, there is more than records: attempts were counted, and workers were seen. These are
corrected after the records, so that an interrupted correction is done again.
"""

from collections.abc import Sequence
from datetime import timedelta

from afterwards.core import lifecycle
from afterwards.core.clock_correction import CORRECTION, corrected
from afterwards.core.serialization.files import UNCLAIMED
from afterwards.core.tallies import Ends
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.columns import COLUMNS, LIMITED, QUEUED
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import reading, set_aside

AT_ONCE = 1000
"""Tasks that one transaction corrects, finished tasks that it reads, and files that it corrects."""

BEFORE_ALL = -(2**63)
"""A place before those of all tasks."""

WRONG = f"""
    SELECT EXISTS (SELECT 1 FROM afterwards_schedules WHERE after > ?)
        OR EXISTS (SELECT 1 FROM afterwards_workers WHERE seen_at > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tallies WHERE at > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'running' AND lease_until > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > ? AND queued_at > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting' AND run_at > ? AND queued_at > ?)
        OR EXISTS (
            SELECT 1 FROM afterwards_tasks INDEXED BY afterwards_expiring
            WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at > ? AND created_at > ?
                AND aside_from IS NULL
        )
        OR EXISTS (
            SELECT 1 FROM afterwards_tasks INDEXED BY afterwards_queued
            WHERE {QUEUED} AND coalesce(queued_at, created_at) > ?
        )
        OR EXISTS (
            SELECT 1 FROM afterwards_tasks INDEXED BY afterwards_limited_first
            WHERE {LIMITED} AND coalesce(queued_at, created_at) > ?
        )
        OR EXISTS (SELECT 1 FROM afterwards_files WHERE until > ?)
        OR ? < (
            SELECT finished_at FROM afterwards_tasks INDEXED BY afterwards_over
            WHERE finished_at IS NOT NULL AND typeof(finished_at) = 'integer'
            ORDER BY finished_at + coalesce(retention, 604800000000) DESC LIMIT 1
        )
"""

NEXT_PLACES = """
    SELECT count(*), max(seq) FROM (SELECT seq FROM afterwards_tasks WHERE seq > ? ORDER BY seq LIMIT ?)
"""

# It translates `lifecycle.put_right`.
PUT_FINISHED_RIGHT = """
    UPDATE afterwards_tasks SET
        created_at = CASE WHEN created_at > ? THEN ? ELSE created_at END,
        started_at = CASE WHEN started_at > ? THEN ? ELSE started_at END,
        finished_at = ?
    WHERE seq > ? AND seq <= ? AND finished_at > ? AND typeof(finished_at) = 'integer'
"""

PUT_FILES_RIGHT = """
    UPDATE afterwards_files SET until = ? WHERE id IN (SELECT id FROM afterwards_files WHERE until > ? LIMIT ?)
"""

WRONG_TASKS = f"""
    SELECT {COLUMNS}, queued_at FROM afterwards_tasks
    WHERE seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > ? AND queued_at > ?
        UNION
        SELECT seq FROM afterwards_tasks WHERE state = 'waiting' AND run_at > ? AND queued_at > ?
        UNION
        SELECT seq FROM afterwards_tasks WHERE state = 'running' AND lease_until > ?
        UNION
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_expiring
        WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at > ? AND created_at > ?
            AND aside_from IS NULL
        UNION
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_queued
        WHERE {QUEUED} AND coalesce(queued_at, created_at) > ?
        UNION
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_limited_first
        WHERE {LIMITED} AND coalesce(queued_at, created_at) > ?
    )
    ORDER BY seq LIMIT ?
"""

PUT_SCHEDULES_RIGHT = "UPDATE afterwards_schedules SET after = ? WHERE after > ?"

PUT_WORKERS_RIGHT = "UPDATE afterwards_workers SET seen_at = ? WHERE seen_at > ?"

PUT_STARTS_RIGHT = "DELETE FROM afterwards_starts WHERE at > ?"

WRONG_ENDS = "SELECT sum(succeeded), sum(failed), sum(retried) FROM afterwards_tallies WHERE at > ?"

DELETE_WRONG_TALLIES = "DELETE FROM afterwards_tallies WHERE at > ?"

PUT_TASKS_RIGHT = """
    WITH new (run_at, expires_at, lease_until, created_at, queued_at, id) AS (VALUES {rows})
    UPDATE afterwards_tasks SET (run_at, expires_at, lease_until, created_at, queued_at) = (
        SELECT run_at, expires_at, lease_until, created_at, queued_at FROM new WHERE new.id = afterwards_tasks.id
    )
    WHERE id IN (SELECT id FROM new)
"""


def is_any_wrong(connection: Connection, lease: timedelta) -> bool:
    latest, longest = _latest(connection, lease)
    until = connection.after(CORRECTION + UNCLAIMED)
    [found] = connection.execute(WRONG, (latest, latest, latest, longest, *[latest] * 8, until, latest)).fetchone()
    return bool(found)


def put_finished_right(connection: Connection, beyond: int) -> int | None:
    """Correct the finished tasks among those at the next places. Returns the last place, None if it was the last."""
    [(count, last)] = connection.execute(NEXT_PLACES, (beyond, AT_ONCE)).fetchall()
    if count:
        latest, now = connection.after(CORRECTION), connection.instant
        connection.execute(PUT_FINISHED_RIGHT, (latest, now, latest, now, now, beyond, last, latest))
    return last if count == AT_ONCE else None


def put_right(connection: Connection, lease: timedelta) -> bool:
    """Correct up to ``AT_ONCE`` tasks and files, and everything else. Returns True if there may be more of them."""
    latest, longest = _latest(connection, lease)
    connection.execute(PUT_SCHEDULES_RIGHT, (connection.instant, latest))
    connection.execute(PUT_WORKERS_RIGHT, (connection.instant, latest))
    connection.execute(PUT_STARTS_RIGHT, (latest,))
    _put_tallies_right(connection, latest)
    until, no_longer = connection.after(UNCLAIMED), connection.after(CORRECTION + UNCLAIMED)
    files = connection.execute(PUT_FILES_RIGHT, (until, no_longer, AT_ONCE)).rowcount
    wrong = (*[latest] * 4, longest, *[latest] * 4, AT_ONCE)
    found: Sequence[rows.Row] = connection.execute(WRONG_TASKS, wrong).fetchall()
    many.update(connection, PUT_TASKS_RIGHT, [right for row in found for right in _put_right(connection, row, lease)])
    connection.queued = True  # the next due task may be due earlier than before
    return AT_ONCE in (len(found), files)


def _put_tallies_right(connection: Connection, latest: int) -> None:
    """Count attempts that ended later than now as ended now."""
    [ends] = connection.execute(WRONG_ENDS, (latest,)).fetchall()
    connection.execute(DELETE_WRONG_TALLIES, (latest,))
    connection.note_ends(Ends(*(int(number or 0) for number in ends)))


def _put_right(connection: Connection, row: rows.Row, lease: timedelta) -> list[rows.Row]:
    """Return the corrected instants of a task. A task that cannot be read is set aside."""
    *task_row, queued_at = row
    now = connection.now
    since = None if queued_at is None else rows.instant_or(queued_at, now)
    found = reading.task_of(connection, tuple(task_row))
    if found.unreadable:
        set_aside.put(connection, tuple(task_row), found.unreadable)
        return []
    task = lifecycle.put_right(found, since, now, lease)
    instants = (task.run_at, task.expires_at, task.lease_until, task.created_at, since and corrected(since, now))
    values = [None if instant is None else rows.from_instant(instant) for instant in instants]
    return [(*values, rows.key(task.id))]


def _latest(connection: Connection, lease: timedelta) -> tuple[int, int]:
    """Return the latest instant that can have been now, and the latest end of a lease."""
    return connection.after(CORRECTION), connection.after(CORRECTION + lease)
