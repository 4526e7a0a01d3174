"""Set aside tasks that this version cannot read, so that all others go on."""

from collections.abc import Sequence

from afterwards.engines.postgres import parsing
from afterwards.engines.postgres.rows import COLUMNS, LATEST, SEQ, Row, as_json, recordset
from afterwards.engines.postgres.work import Aside, Operation, Work, fetch

SET_ASIDE = f"""
    UPDATE afterwards_tasks t SET state = 'unreadable', aside_from = t.state, set_aside = new.set_aside
    FROM {recordset("new", ["seq", "set_aside"])}
    WHERE t.seq = new.seq AND t.aside_from IS NULL AND t.finished_at IS NULL
    RETURNING t.id::text, t.name, t.set_aside
"""

# Rows that no index scan of a worker would ever reach.
LOST_TO_INDEXES = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t
    WHERE t.seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at IS NULL
        UNION ALL
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > {LATEST}
        UNION ALL
        SELECT seq FROM afterwards_tasks WHERE state = 'running' AND (lease_until IS NULL OR lease_until > {LATEST})
        UNION ALL
        SELECT seq FROM afterwards_tasks WHERE state = 'waiting' AND after IS NULL
    )
    ORDER BY t.seq LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
"""


STILL_EXPIRED = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t
    WHERE t.seq = ANY (%s::bigint[]) AND t.state = 'running' AND t.lease_until <= %s
    ORDER BY t.seq FOR NO KEY UPDATE
"""


def put(work: Work, unreadable: Sequence[tuple[Row, str]]) -> Operation[None]:
    """Set aside tasks whose rows cannot be read, each with the reason. The other values in the rows stay unchanged."""
    if unreadable:
        reasons = as_json({"seq": row[SEQ], "set_aside": reason} for row, reason in unreadable)
        for id, name, reason in (yield from fetch(SET_ASIDE, reasons)):
            work.set_aside.append(Aside(id, name, reason))


def put_unreadable(work: Work, found: Sequence[Row]) -> Operation[None]:
    """Set aside those of the locked rows that cannot be read."""
    tasks = [(row, parsing.to_task(row)) for row in found]
    yield from put(work, [(row, task.unreadable) for row, task in tasks if task.unreadable])


def put_expired(work: Work, seqs: Sequence[int]) -> Operation[None]:
    """Set aside the unreadable ones of these running tasks whose leases are still run out."""
    yield from put_unreadable(work, (yield from fetch(STILL_EXPIRED, [*seqs], work.instant)))


def put_odd(work: Work) -> Operation[None]:
    """Set aside tasks that no worker would ever find, because they have no place in any order."""
    yield from put_unreadable(work, (yield from fetch(LOST_TO_INDEXES)))
