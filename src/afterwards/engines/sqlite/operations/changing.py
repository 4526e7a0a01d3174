"""Store tasks as they stand after a change. Every function runs in a transaction that others share."""

from afterwards.core.limits import UNLIMITED
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, Failure, State, Task
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.io.connection import Connection

INSERT_FAILURE = """
    INSERT INTO afterwards_failures (task, attempt, at, worker, kind, type, message, traceback)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

COUNT_FAILURES = "SELECT count(*) FROM afterwards_failures WHERE task = ?"

TRIM_FAILURES = """
    DELETE FROM afterwards_failures WHERE rowid IN (
        SELECT rowid FROM afterwards_failures WHERE task = ? ORDER BY rowid LIMIT ? OFFSET ?
    )
"""

COUNT_LEFT_OUT = "UPDATE afterwards_tasks SET failures_left_out = failures_left_out + ? WHERE id = ?"

UPDATE = """
    UPDATE afterwards_tasks SET
        state = ?, attempt = ?, failed = ?, crashed = ?, suspect = ?, losses = ?, run_at = ?, worker = ?,
        lease_until = ?, started_at = ?, finished_at = ?, cancel_requested = ?, reason = ?, cause = ?, progress = ?,
        result = ?, expires_at = ?, aside_from = ?, set_aside = ?, queued_at = ?
    WHERE id = ?
"""

MOST_FAILURES = FIRST_FAILURES + LAST_FAILURES


def put(connection: Connection, task: Task) -> None:
    """Store a task as it stands now, but for its failures."""
    connection.execute(UPDATE, rows.changed(task, connection.instant))
    connection.queued |= (task.state is State.QUEUED and task.set_aside is None) or (
        task.limit_key != UNLIMITED and task.state is not State.RUNNING  # others may have waited for it
    )


def insert_failures(connection: Connection, task: Task) -> None:
    """Store all failures of a new task."""
    connection.executemany(INSERT_FAILURE, [rows.from_failure(task.id, failure) for failure in task.failures])


def add_failure(connection: Connection, task: Task, failure: Failure) -> None:
    """What ``lifecycle.with_failure`` says."""
    connection.execute(INSERT_FAILURE, rows.from_failure(task.id, failure))
    if task.attempt <= MOST_FAILURES:  # as most often
        return
    key = rows.key(task.id)
    [count] = connection.execute(COUNT_FAILURES, (key,)).fetchone()
    if count > MOST_FAILURES:
        connection.execute(TRIM_FAILURES, (key, count - MOST_FAILURES, FIRST_FAILURES))
        connection.execute(COUNT_LEFT_OUT, (count - MOST_FAILURES, key))
