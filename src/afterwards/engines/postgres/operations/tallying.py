"""Counts of ended attempts, by the minute.

Each server process counts in rows of its own: two transactions never wait for each other. ``merge`` adds up the rows of
minutes that are over.
"""

from datetime import timedelta

from afterwards.core.tallies import KEPT, STEP, Ends, Tally, step_of
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.work import Operation, Work, change, fetch

NOT_MERGED = 5 * STEP
"""The time for which the rows of a minute stay apart: transactions may still count in them."""

MERGED_AT_ONCE = 1000
"""Rows that one transaction merges, so that none takes long."""

_ADD = """
    ON CONFLICT (minute, process) DO UPDATE SET
        succeeded = kept.succeeded + excluded.succeeded,
        failed = kept.failed + excluded.failed,
        retried = kept.retried + excluded.retried
"""

# Part of a statement that ends attempts: it counts the rows of its CTE `held` as successes.
COUNT_HELD = f"""
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded)
    SELECT %s::bigint, pg_backend_pid(), count(*) FROM held HAVING count(*) > 0 {_ADD}
"""

COUNT_ENDS = f"""
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded, failed, retried)
    VALUES (%s, pg_backend_pid(), %s, %s, %s) {_ADD}
"""

TALLIES = """
    SELECT minute - minute %% %s::bigint AS step, sum(succeeded)::bigint, sum(failed)::bigint, sum(retried)::bigint
    FROM afterwards_tallies WHERE minute >= %s GROUP BY step ORDER BY step
"""

MERGE = f"""
    WITH old AS (
        DELETE FROM afterwards_tallies WHERE (minute, process) IN (
            SELECT minute, process FROM afterwards_tallies WHERE process <> 0 AND minute < %s
            ORDER BY minute, process LIMIT %s FOR UPDATE SKIP LOCKED
        )
        RETURNING minute, succeeded, failed, retried
    )
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded, failed, retried)
    SELECT minute, 0, sum(succeeded), sum(failed), sum(retried) FROM old GROUP BY minute ORDER BY minute {_ADD}
"""

DELETE_TALLIES = "DELETE FROM afterwards_tallies WHERE minute <= %s"


def minute_of(work: Work) -> int:
    """Return the instant at which the transaction's minute began."""
    return rows.from_instant(step_of(work.now))


def count(work: Work, ends: Ends) -> Operation[None]:
    if ends:
        yield from change(COUNT_ENDS, minute_of(work), *ends)


def tallies(work: Work, since: timedelta, step: timedelta) -> Operation[list[Tally]]:
    first = step_of(work.now - since, step)
    found = yield from fetch(TALLIES, rows.from_span(step), rows.from_instant(first))
    return [Tally(rows.to_instant(at), Ends(*ends)) for at, *ends in found]


def prune(work: Work) -> Operation[None]:
    """Forget old counts, and merge the rows of minutes that are over."""
    yield from change(DELETE_TALLIES, work.after(-KEPT))
    yield from change(MERGE, work.after(-NOT_MERGED), MERGED_AT_ONCE)
