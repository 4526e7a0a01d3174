"""Renew the leases of attempts that beat, and end those of dead workers."""

from collections.abc import Collection, Sequence
from datetime import timedelta

from afterwards.core.task import LEASE_ENDED, Lease
from afterwards.engine import Heartbeat, Held
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection

HELD = "SELECT id, attempt, cancel_requested FROM afterwards_tasks WHERE id IN ({places}) AND state = 'running'"

RENEW = "UPDATE afterwards_tasks SET lease_until = ? WHERE id IN ({places}) AND state = 'running'"

SET_PROGRESS = """
    WITH new (id, progress) AS (VALUES {rows})
    UPDATE afterwards_tasks SET progress = (SELECT progress FROM new WHERE new.id = afterwards_tasks.id)
    WHERE id IN (SELECT id FROM new)
"""

END_LEASES = """
    UPDATE afterwards_tasks SET lease_until = ? WHERE state = 'running' AND lease_until > ? AND worker IN ({places})
"""


def heartbeat(connection: Connection, beats: Sequence[Heartbeat], lease: timedelta) -> list[Held]:
    keys = {beat.lease.task_id: rows.key(beat.lease.task_id) for beat in beats}
    running = {
        Lease(rows.to_id(key), attempt): why for key, attempt, why in many.select(connection, HELD, keys.values())
    }
    held = [beat for beat in beats if beat.lease in running]
    renewed = {beat.lease.task_id: keys[beat.lease.task_id] for beat in held}
    many.change(connection, RENEW, renewed.values(), before=(connection.after(lease),))
    progress = {beat.lease.task_id: beat.progress for beat in held if beat.progress is not None}
    texts = [(keys[id], shown.to_text()) for id, shown in progress.items()]
    many.update(connection, SET_PROGRESS, texts)
    reasons = ((beat.lease, running[beat.lease]) for beat in held)
    return [Held(lease, None if reason is None else str(reason)) for lease, reason in reasons]


def expire(connection: Connection, workers: Collection[str]) -> None:
    """End the leases of dead workers."""
    ended = rows.from_instant(LEASE_ENDED)
    many.change(connection, END_LEASES, workers, before=(ended, ended))
