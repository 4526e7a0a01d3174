"""Delete records: those whose retention is over, and those that somebody names."""

from collections.abc import Sequence

from afterwards.engines.postgres.operations import files
from afterwards.engines.postgres.work import Operation, Work, change, fetch

_OVER = "finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= %s"

ANY_OVER = f"SELECT EXISTS (SELECT 1 FROM afterwards_tasks WHERE {_OVER})"

# Others wait until all tasks behind them are decided on.
_ALL_DECIDED = "NOT EXISTS (SELECT 1 FROM afterwards_behind b WHERE b.task = t.id)"

# The condition is asked again once the row is locked: a requeued task stays. For the array see `timing.PROMOTE`.
DELETE_TASKS = f"""
    DELETE FROM afterwards_tasks WHERE seq = ANY (ARRAY(
        SELECT seq FROM afterwards_tasks t
        WHERE {_OVER} AND {_ALL_DECIDED}
        ORDER BY finished_at + coalesce(retention, 604800000000) LIMIT %s FOR UPDATE SKIP LOCKED
    ))
    RETURNING id::text
"""

DELETE_FINISHED = f"""
    DELETE FROM afterwards_tasks WHERE seq IN (
        SELECT seq FROM afterwards_tasks t
        WHERE id = ANY (%s::uuid[]) AND state IN ('succeeded', 'failed', 'cancelled') AND {_ALL_DECIDED}
        ORDER BY seq FOR UPDATE
    )
    RETURNING id::text
"""

DELETE_FAILURES = "DELETE FROM afterwards_failures WHERE task = ANY (%s::uuid[])"

DELETE_LOGS = "DELETE FROM afterwards_logs WHERE task = ANY (%s::uuid[])"

DELETE_ALIASES = "DELETE FROM afterwards_aliases WHERE task = ANY (%s::uuid[])"

DELETE_STARTS = "DELETE FROM afterwards_starts WHERE until <= %s"


def is_any_over(work: Work) -> Operation[bool]:
    [(found,)] = yield from fetch(ANY_OVER, work.instant)
    return bool(found)


def prune(work: Work, limit: int) -> Operation[int]:
    ids = [id for [id] in (yield from fetch(DELETE_TASKS, work.instant, limit))]
    yield from _forget(work, ids)
    return len(ids)


def delete(work: Work, ids: Sequence[str]) -> Operation[list[str]]:
    """Delete those of the tasks that have finished. Returns their ids."""
    deleted = [id for [id] in (yield from fetch(DELETE_FINISHED, [*ids]))]
    yield from _forget(work, deleted)
    return deleted


def forget_details(ids: Sequence[str]) -> Operation[None]:
    """Delete what other tables keep of deleted tasks, apart from files."""
    for statement in (DELETE_FAILURES, DELETE_LOGS, DELETE_ALIASES):
        yield from change(statement, [*ids])


def forget_starts(work: Work) -> Operation[None]:
    """Delete starts that count against no rate any more."""
    yield from change(DELETE_STARTS, work.instant)


def _forget(work: Work, ids: Sequence[str]) -> Operation[None]:
    if ids:
        yield from forget_details(ids)
        yield from files.release(work, ids)
