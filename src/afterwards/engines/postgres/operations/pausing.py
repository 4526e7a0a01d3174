"""The pauses that people set."""

from dataclasses import replace

from afterwards.core.claim import Paused
from afterwards.engines.postgres.operations.looking import LOCK_PAUSES, PAUSED, to_paused
from afterwards.engines.postgres.rows import as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

_SOME = recordset("named", ["name"], kind="text")

PAUSE = f"INSERT INTO afterwards_paused (kind, name) SELECT kind, name FROM {_SOME} ON CONFLICT DO NOTHING"

RESUME = f"DELETE FROM afterwards_paused p USING {_SOME} WHERE p.kind = named.kind AND p.name = named.name"

PAUSED_SCHEDULES = "SELECT name FROM afterwards_schedules WHERE paused"

PAUSE_SCHEDULES = "UPDATE afterwards_schedules SET paused = true WHERE name = ANY (%s::text[])"

# A translation of `schedule.resumed`.
RESUME_SCHEDULES = """
    UPDATE afterwards_schedules SET paused = false, after = greatest(after, %s::bigint)
    WHERE name = ANY (%s::text[]) AND paused
"""


def paused(work: Work) -> Operation[Paused]:
    found = to_paused((yield from fetch(PAUSED)))
    return replace(found, schedules=frozenset(name for [name] in (yield from fetch(PAUSED_SCHEDULES))))


def pause(work: Work, paused: Paused) -> Operation[None]:
    """Store pauses, after all claims that have not seen them."""
    yield from fetch(LOCK_PAUSES)
    yield from change(PAUSE, _rows(paused))
    yield from change(PAUSE_SCHEDULES, sorted(paused.schedules))


def resume(work: Work, paused: Paused) -> Operation[None]:
    yield from change(RESUME, _rows(paused))
    yield from change(RESUME_SCHEDULES, work.instant, sorted(paused.schedules))
    work.queued = True


def _rows(paused: Paused) -> str:
    queues = [{"kind": "queue", "name": queue} for queue in sorted(paused.queues)]
    return as_json([*queues, *({"kind": "name", "name": name} for name in sorted(paused.names))])
