"""Publish held tasks."""

from collections.abc import Sequence
from datetime import datetime

from afterwards.core import lifecycle
from afterwards.core.lifecycle import Start
from afterwards.core.task import Lease
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.rows import as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, begin, change

PUBLISH = f"""
    WITH held AS MATERIALIZED (
        SELECT t.seq, new.run_at, new.chosen
        FROM {recordset("new", ["id", "attempt", "run_at"], chosen="boolean")}
        JOIN afterwards_tasks t ON t.id = new.id AND t.attempt = new.attempt
        WHERE t.state = 'scheduled' ORDER BY t.seq FOR NO KEY UPDATE OF t
    )
    UPDATE afterwards_tasks t SET
        state = CASE WHEN held.run_at IS NULL THEN 'queued' ELSE 'scheduled' END,
        run_at = held.run_at,
        since = CASE WHEN held.run_at IS NULL OR (t.since IS NOT NULL AND NOT held.chosen) THEN {{now}} END
    FROM held WHERE t.seq = held.seq
"""


def publish(work: Work, starts: Sequence[tuple[Lease, Start]]) -> Operation[None]:
    """Queue or schedule held tasks, as if one after the other, in a transaction that does nothing else."""
    if any(start is not None for _, start in starts):
        yield from begin(work)
    by_lease: dict[Lease, dict[str, object]] = {}
    for lease, start in starts:
        if rows.is_uuid(lease.task_id) and by_lease.get(lease, _HELD)["run_at"] is not None:
            at = lifecycle.start_at(start, work.now)
            by_lease[lease] = {
                "id": lease.task_id,
                "attempt": lease.attempt,
                "run_at": rows.from_instant(at) if at is not None and at > work.now else None,
                "chosen": isinstance(start, datetime),
            }
    if by_lease:
        work.is_last = work.is_repeatable = True
        changed = yield from change(PUBLISH, as_json(by_lease.values()))
        work.queued |= changed > 0


_HELD = {"run_at": 0}
