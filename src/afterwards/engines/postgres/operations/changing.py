"""Store tasks after a rule has changed them."""

from collections.abc import Iterable, Sequence

from afterwards.core.limits import UNLIMITED
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, LOGGED_ATTEMPTS, Failure, Lease, LogLine, State, Task
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.rows import CHANGING, as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change

MOST_FAILURES = FIRST_FAILURES + LAST_FAILURES

UPDATE_ALL = f"""
    UPDATE afterwards_tasks t SET {", ".join(f"{column} = new.{column}" for column in CHANGING)}
    FROM {recordset("new", ["id", *CHANGING])} WHERE t.id = new.id
"""

_FAILURE = "task, attempt, at, worker, kind, type, message, traceback"

INSERT_FAILURES = f"""
    INSERT INTO afterwards_failures ({_FAILURE})
    SELECT {_FAILURE} FROM {
    recordset(
        "new",
        ["attempt"],
        task="uuid",
        at="bigint",
        worker="text",
        kind="text",
        type="text",
        message="text",
        traceback="text",
    )
}
"""

TRIM_FAILURES = f"""
    WITH numbered AS (
        SELECT task, seq, row_number() OVER (PARTITION BY task ORDER BY seq) AS number,
            count(*) OVER (PARTITION BY task) AS total
        FROM afterwards_failures WHERE task = ANY (%s::uuid[])
    ), deleted AS (
        DELETE FROM afterwards_failures f USING numbered n
        WHERE f.task = n.task AND f.seq = n.seq
            AND n.number > {FIRST_FAILURES} AND n.number <= n.total - {LAST_FAILURES}
        RETURNING f.task
    )
    UPDATE afterwards_tasks t SET failures_left_out = t.failures_left_out + gone.count
    FROM (SELECT task, count(*) AS count FROM deleted GROUP BY task) AS gone WHERE t.id = gone.task
"""

PUT_LOGS = "ON CONFLICT (task, attempt) DO UPDATE SET lines = excluded.lines"

INSERT_LOGS = f"""
    INSERT INTO afterwards_logs (task, attempt, lines)
    SELECT task, attempt, lines FROM {recordset("new", ["attempt"], task="uuid", lines="text")} {PUT_LOGS}
"""

TRIM_LOGS = f"""
    DELETE FROM afterwards_logs l USING (
        SELECT task, attempt, row_number() OVER (PARTITION BY task ORDER BY attempt DESC) AS number
        FROM afterwards_logs WHERE task = ANY (%s::uuid[])
    ) AS numbered
    WHERE l.task = numbered.task AND l.attempt = numbered.attempt AND numbered.number > {LOGGED_ATTEMPTS}
"""


def put_all(work: Work, tasks: Sequence[Task]) -> Operation[None]:
    """Store locked tasks with their new values, without their failures."""
    if not tasks:
        return
    yield from change(UPDATE_ALL, as_json(rows.changed(task, work.instant) for task in tasks))
    work.queued |= any(
        (task.state in (State.QUEUED, State.SCHEDULED) and task.set_aside is None)
        or (task.limit_key != UNLIMITED and task.state is not State.RUNNING)  # others may have waited for the limit
        for task in tasks
    )


def add_failures(failures: Iterable[tuple[Task, Failure]]) -> Operation[None]:
    """Store failures as ``history.with_failure`` adds them, each with the task that already includes it."""
    added = [*failures]
    if not added:
        return
    yield from change(INSERT_FAILURES, as_json(rows.from_failure(task.id, failure) for task, failure in added))
    # An attempt has two failures if it was lost and has ended late.
    if numerous := [task.id for task, _ in added if 2 * task.attempt > MOST_FAILURES]:
        yield from change(TRIM_FAILURES, numerous)


def add_logs(logs: Iterable[tuple[Lease, Sequence[LogLine]]]) -> Operation[None]:
    """Store the lines that attempts logged, as ``history.with_logs`` adds them."""
    added = [(lease, lines) for lease, some in logs if (lines := rows.from_logs(some)) is not None]
    if added:
        new = ({"task": id, "attempt": attempt, "lines": lines} for (id, attempt), lines in added)
        yield from change(INSERT_LOGS, as_json(new))
        yield from trim_logs(lease for lease, _ in added)


def trim_logs(logged: Iterable[Lease]) -> Operation[None]:
    """Delete the lines of a task's earlier attempts, if so many have logged."""
    if numerous := [lease.task_id for lease in logged if lease.attempt > LOGGED_ATTEMPTS]:
        yield from change(TRIM_LOGS, numerous)
