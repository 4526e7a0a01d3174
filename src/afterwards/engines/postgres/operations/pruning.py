"""Delete records whose retention is over."""

from afterwards.engines.postgres.operations import files
from afterwards.engines.postgres.work import Operation, Work, change, fetch

_OVER = "finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= %s"

ANY_OVER = f"SELECT EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_OVER})"

# The condition is asked again once the row is locked: a requeued task stays.
DELETE_TASKS = f"""
    DELETE FROM afterwards_tasks WHERE seq IN (
        SELECT seq FROM afterwards_tasks t
        WHERE {_OVER} AND NOT EXISTS (SELECT 1 FROM afterwards_behind b WHERE b.task = t.id)
        ORDER BY finished_at + coalesce(retention, 604800000000) LIMIT %s FOR UPDATE SKIP LOCKED
    )
    RETURNING id::text
"""

DELETE_FAILURES = "DELETE FROM afterwards_failures WHERE task = ANY (%s::uuid[])"

DELETE_ALIASES = "DELETE FROM afterwards_aliases WHERE task = ANY (%s::uuid[])"

DELETE_STARTS = "DELETE FROM afterwards_starts WHERE until <= %s"


def is_any_over(work: Work) -> Operation[bool]:
    [(found,)] = yield from fetch(ANY_OVER, work.instant)
    return bool(found)


def prune(work: Work, limit: int) -> Operation[int]:
    ids = [id for [id] in (yield from fetch(DELETE_TASKS, work.instant, limit))]
    if ids:
        yield from change(DELETE_FAILURES, ids)
        yield from change(DELETE_ALIASES, ids)
        yield from files.release(work, ids)
    return len(ids)


def forget_starts(work: Work) -> Operation[None]:
    """Delete starts that count against no rate any more."""
    yield from change(DELETE_STARTS, work.instant)
