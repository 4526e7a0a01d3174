"""Counts of ended attempts, by the minute.

Each server process counts in rows of its own: two transactions never wait for each other. ``merge`` adds up the rows of
minutes that are over.
"""

from collections.abc import Iterable
from datetime import timedelta

from afterwards.core.tallies import KEPT, STEP, Ends, Tally, added, step_of
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.rows import as_json, recordset
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
    SELECT {{now}} - {{now}} %% {rows.from_span(STEP)}, pg_backend_pid(), count(*) FROM held HAVING count(*) > 0 {_ADD}
"""

COUNT_ENDS = f"""
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded, failed, retried)
    VALUES (%s, pg_backend_pid(), %s, %s, %s) {_ADD}
"""

TALLIES = """
    SELECT minute - minute %% %s::bigint AS step, sum(succeeded)::bigint, sum(failed)::bigint, sum(retried)::bigint
    FROM afterwards_tallies WHERE minute >= %s GROUP BY step ORDER BY step
"""

# Materialized, because a plan may evaluate a subquery for each row, and each time lock as many other rows.
MERGE = f"""
    WITH gathered AS MATERIALIZED (
        SELECT minute, process FROM afterwards_tallies WHERE process <> 0 AND minute < %s
        ORDER BY minute, process LIMIT %s FOR UPDATE SKIP LOCKED
    ), old AS (
        DELETE FROM afterwards_tallies WHERE (minute, process) IN (SELECT minute, process FROM gathered)
        RETURNING minute, succeeded, failed, retried
    )
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded, failed, retried)
    SELECT minute, 0, sum(succeeded), sum(failed), sum(retried) FROM old GROUP BY minute ORDER BY minute {_ADD}
"""

TAKE_TALLIES = """
    WITH taken AS MATERIALIZED (
        SELECT minute, process FROM afterwards_tallies WHERE minute <= %s ORDER BY minute, process LIMIT %s FOR UPDATE
    )
    DELETE FROM afterwards_tallies WHERE (minute, process) IN (SELECT minute, process FROM taken)
    RETURNING minute, succeeded, failed, retried
"""

PUT_TALLIES = f"""
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded, failed, retried)
    SELECT minute, 0, succeeded, failed, retried
    FROM {recordset("new", [], minute="bigint", succeeded="bigint", failed="bigint", retried="bigint")}
    ORDER BY minute {_ADD}
"""

PUT_RIGHT = f"""
    WITH wrong AS (DELETE FROM afterwards_tallies WHERE minute > %s RETURNING succeeded, failed, retried)
    INSERT INTO afterwards_tallies AS kept (minute, process, succeeded, failed, retried)
    SELECT %s::bigint, 0, sum(succeeded), sum(failed), sum(retried) FROM wrong HAVING count(*) > 0 {_ADD}
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


def take(limit: int) -> Operation[list[Tally]]:
    """Return some counts, and delete them."""
    ends: dict[int, Ends] = {}  # by minute: processes count apart
    for minute, *numbers in (yield from fetch(TAKE_TALLIES, rows.LATEST, limit)):
        ends[minute] = added(ends.get(minute, Ends()), Ends(*numbers))
    return [Tally(rows.to_instant(minute), ends[minute]) for minute in sorted(ends)]


def put(tallies: Iterable[Tally]) -> Operation[None]:
    """Add counts to those that are stored. Each minute is given once."""
    stored = [{"minute": rows.from_instant(one.at)} | one.ends._asdict() for one in tallies]
    if stored:
        yield from change(PUT_TALLIES, as_json(stored))


def put_right(work: Work, latest: int) -> Operation[None]:
    """Count attempts that ended later than ``latest`` as ended now."""
    yield from change(PUT_RIGHT, latest, minute_of(work))


def prune(work: Work) -> Operation[None]:
    """Forget old counts, and merge the rows of minutes that are over."""
    yield from change(DELETE_TALLIES, work.after(-KEPT))
    yield from change(MERGE, work.after(-NOT_MERGED), MERGED_AT_ONCE)
