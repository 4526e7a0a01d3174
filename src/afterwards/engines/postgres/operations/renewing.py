"""Renew the leases of attempts that beat."""

from collections.abc import Sequence
from datetime import timedelta

from afterwards.core.task import Lease
from afterwards.engine import Heartbeat, Held
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.rows import as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, fetch

RENEW = f"""
    WITH held AS (
        SELECT t.seq, beat.progress FROM afterwards_tasks t JOIN {recordset("beat", ["id", "attempt", "progress"])}
            ON t.id = beat.id AND t.attempt = beat.attempt
        WHERE t.state = 'running' ORDER BY t.seq FOR NO KEY UPDATE OF t
    )
    UPDATE afterwards_tasks t SET lease_until = %s, progress = coalesce(held.progress, t.progress)
    FROM held WHERE t.seq = held.seq
    RETURNING t.id::text, t.attempt, t.cancel_requested
"""


def heartbeat(work: Work, beats: Sequence[Heartbeat], lease: timedelta) -> Operation[list[Held]]:
    known = [beat for beat in beats if rows.is_uuid(beat.lease.task_id)]
    by_lease = {beat.lease: beat for beat in known}
    renewed = as_json(
        {"id": id, "attempt": attempt, "progress": beat.progress and beat.progress.to_text()}
        for (id, attempt), beat in by_lease.items()
    )
    found = yield from fetch(RENEW, renewed, work.after(lease))
    reasons = {Lease(id, attempt): why for id, attempt, why in found}
    return [Held(beat.lease, reasons[beat.lease]) for beat in known if beat.lease in reasons]
