"""Correct stored instants after a clock correction. Every function runs in a transaction that others share."""

from collections.abc import Sequence
from datetime import timedelta

from afterwards.core import lifecycle
from afterwards.core.clock_correction import CORRECTION, corrected
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import reading, set_aside

AT_ONCE = 1000
"""Tasks that one transaction corrects."""


WRONG = """
    SELECT EXISTS (SELECT 1 FROM afterwards_schedules WHERE after > ?)
        OR EXISTS (SELECT 1 FROM afterwards_workers WHERE seen_at > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'running' AND lease_until > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > ? AND queued_at > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting' AND run_at > ? AND queued_at > ?)
        OR EXISTS (
            SELECT 1 FROM afterwards_tasks INDEXED BY afterwards_expiring
            WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at > ? AND created_at > ?
                AND aside_from IS NULL
        )
        OR EXISTS (
            SELECT 1 FROM afterwards_tasks INDEXED BY afterwards_queued_since
            WHERE state = 'queued' AND coalesce(queued_at, created_at) > ?
        )
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
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_queued_since
        WHERE state = 'queued' AND coalesce(queued_at, created_at) > ?
    )
    ORDER BY seq LIMIT ?
"""

PUT_SCHEDULES_RIGHT = "UPDATE afterwards_schedules SET after = ? WHERE after > ?"

PUT_WORKERS_RIGHT = "UPDATE afterwards_workers SET seen_at = ? WHERE seen_at > ?"

PUT_STARTS_RIGHT = "DELETE FROM afterwards_starts WHERE at > ?"

PUT_TASKS_RIGHT = """
    WITH new (run_at, expires_at, lease_until, created_at, queued_at, id) AS (VALUES {rows})
    UPDATE afterwards_tasks SET (run_at, expires_at, lease_until, created_at, queued_at) = (
        SELECT run_at, expires_at, lease_until, created_at, queued_at FROM new WHERE new.id = afterwards_tasks.id
    )
    WHERE id IN (SELECT id FROM new)
"""


def is_any_wrong(connection: Connection, lease: timedelta) -> bool:
    latest, longest = _latest(connection, lease)
    [found] = connection.execute(WRONG, (latest, latest, longest, *[latest] * 7)).fetchone()
    return bool(found)


def put_right(connection: Connection, lease: timedelta) -> bool:
    """Correct one piece. Returns True."""
    latest, longest = _latest(connection, lease)
    connection.execute(PUT_SCHEDULES_RIGHT, (connection.instant, latest))
    connection.execute(PUT_WORKERS_RIGHT, (connection.instant, latest))
    connection.execute(PUT_STARTS_RIGHT, (latest,))
    wrong = (*[latest] * 4, longest, *[latest] * 3, AT_ONCE)
    found: Sequence[rows.Row] = connection.execute(WRONG_TASKS, wrong).fetchall()
    many.update(connection, PUT_TASKS_RIGHT, [right for row in found for right in _put_right(connection, row, lease)])
    connection.queued = True  # the next due task may be due earlier than before
    return True


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
