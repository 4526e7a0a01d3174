"""Store tasks after a rule has changed them. Every function runs in a transaction that others share."""

from collections.abc import Iterable, Sequence

from afterwards.core.limits import UNLIMITED
from afterwards.core.settling import Settled
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, LOGGED_ATTEMPTS, Failure, State, Task
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection

MOST_FAILURES = FIRST_FAILURES + LAST_FAILURES

UPDATE = """
    UPDATE afterwards_tasks SET
        state = ?, attempt = ?, failed = ?, crashed = ?, suspect = ?, losses = ?, run_at = ?, worker = ?,
        lease_until = ?, started_at = ?, finished_at = ?, cancel_requested = ?, reason = ?, cause = ?, progress = ?,
        result = ?, expires_at = ?, aside_from = ?, set_aside = ?, queued_at = ?
    WHERE id = ?
"""

STANDING = """
    state, attempt, failed, crashed, suspect, losses, run_at, worker, lease_until, started_at, finished_at,
    cancel_requested, reason, cause, progress, result, expires_at, aside_from, set_aside, queued_at
"""

UPDATE_ALL = f"""
    WITH new ({STANDING}, id) AS (VALUES {{rows}})
    UPDATE afterwards_tasks SET ({STANDING}) = (SELECT {STANDING} FROM new WHERE new.id = afterwards_tasks.id)
    WHERE id IN (SELECT id FROM new)
"""

INSERT_FAILURES = """
    INSERT INTO afterwards_failures (task, attempt, at, worker, kind, type, message, traceback) VALUES {rows}
"""

COUNT_LEFT_OUT = f"""
    UPDATE afterwards_tasks SET failures_left_out = failures_left_out - {MOST_FAILURES} + (
        SELECT count(*) FROM afterwards_failures WHERE task = afterwards_tasks.id
    )
    WHERE id IN ({{places}})
        AND (SELECT count(*) FROM afterwards_failures WHERE task = afterwards_tasks.id) > {MOST_FAILURES}
"""

TRIM_FAILURES = f"""
    DELETE FROM afterwards_failures WHERE rowid IN (
        SELECT one.rowid FROM afterwards_failures AS one
        WHERE one.task IN ({{places}})
            AND {FIRST_FAILURES} <= (
                SELECT count(*) FROM afterwards_failures WHERE task = one.task AND rowid < one.rowid
            )
            AND {LAST_FAILURES} <= (
                SELECT count(*) FROM afterwards_failures WHERE task = one.task AND rowid > one.rowid
            )
    )
"""

INSERT_LOGS = "INSERT INTO afterwards_logs (task, attempt, lines) VALUES {rows}"

TRIM_LOGS = f"""
    DELETE FROM afterwards_logs WHERE rowid IN (
        SELECT one.rowid FROM afterwards_logs AS one
        WHERE one.task IN ({{places}})
            AND {LOGGED_ATTEMPTS} <= (SELECT count(*) FROM afterwards_logs WHERE task = one.task AND rowid > one.rowid)
    )
"""


def put_all(connection: Connection, tasks: Sequence[Task]) -> None:
    """Store tasks with their new values, without their failures."""
    if len(tasks) == 1:  # the usual case
        connection.execute(UPDATE, rows.changed(tasks[0], connection.instant))
    else:
        many.update(connection, UPDATE_ALL, [rows.changed(task, connection.instant) for task in tasks])
    connection.queued |= any(
        (task.state is State.QUEUED and task.set_aside is None)
        or (task.limit_key != UNLIMITED and task.state is not State.RUNNING)  # others may have waited for the limit
        for task in tasks
    )


def add_failures(connection: Connection, failures: Iterable[tuple[Task, Failure]]) -> None:
    """Store failures as ``history.with_failure`` adds them, each with the task that already includes it."""
    added = [*failures]
    many.insert(connection, INSERT_FAILURES, [rows.from_failure(task.id, failure) for task, failure in added])
    # An attempt has at most two: it was lost, and it ended late.
    if numerous := [rows.key(task.id) for task, _ in added if 2 * task.attempt > MOST_FAILURES]:
        many.change(connection, COUNT_LEFT_OUT, numerous)
        many.change(connection, TRIM_FAILURES, numerous)


def add_logs(connection: Connection, accepted: Iterable[Settled]) -> None:
    """Store what attempts logged, as ``history.with_logs`` adds it."""
    logged = [one for one in accepted if one.logs]
    if not logged:
        return
    lines = [row for one in logged for row in rows.from_logs(one.lease.task_id, one.logs)]
    many.insert(connection, INSERT_LOGS, lines)
    if numerous := [rows.key(one.lease.task_id) for one in logged if one.lease.attempt > LOGGED_ATTEMPTS]:
        many.change(connection, TRIM_LOGS, numerous)
