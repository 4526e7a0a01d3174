"""Apply the time before tasks are chosen: cancel tasks that have expired, and queue those that are due."""

from afterwards.engines.postgres.operations import finishing
from afterwards.engines.postgres.operations.looking import Look
from afterwards.engines.postgres.work import Operation, Work, change

# An array is made once. A plan may evaluate `IN (SELECT ...)` for each row, and each time lock as many other tasks.
PROMOTE = """
    UPDATE afterwards_tasks SET state = 'queued', since = run_at, run_at = NULL WHERE seq = ANY (ARRAY(
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= %s
        ORDER BY run_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
    ))
"""

MOST_PROMOTED = 1000
"""Due tasks that one transaction queues, so that it does not take long if very many become due together."""


def apply(work: Work, seen: Look) -> Operation[bool]:
    """Return False if very many have expired. None of them may start, so the caller has to come again."""
    if seen.is_any_overdue and (yield from finishing.expire(work)):
        work.queued = True
        return False
    if seen.is_any_due:
        promoted = yield from change(PROMOTE, work.instant, MOST_PROMOTED)
        work.queued |= promoted > 0  # other workers may serve tasks that this worker does not
    return True


def is_needed(seen: Look) -> bool:
    return seen.is_any_due or seen.is_any_overdue
