"""Find out what there is to do: lanes of queued tasks, due and overdue tasks, pauses."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from afterwards.core.claim import Claim, Paused
from afterwards.core.routing import Route
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.rows import Row
from afterwards.engines.postgres.work import Operation, Work, fetch

QUEUED, LIMITED, SUSPECTS = "queued", "limited", "suspects"

WHERE = {
    QUEUED: "state = 'queued' AND limit_key = '' AND NOT suspect",
    LIMITED: "state = 'queued' AND limit_key <> '' AND NOT suspect",
    SUSPECTS: "state = 'queued' AND suspect",
}
"""The conditions of three partial indexes, which together hold all queued tasks."""


def _lanes(kind: str) -> str:
    """Return the SQL of a skip scan: one step in an index for each lane, however many tasks are in it."""
    return f"""
        {kind} (queue, name) AS (
            (SELECT queue, name FROM afterwards_tasks WHERE {WHERE[kind]} ORDER BY queue, name LIMIT 1)
            UNION ALL
            SELECT next.queue, next.name FROM {kind} CROSS JOIN LATERAL (
                SELECT queue, name FROM afterwards_tasks WHERE {WHERE[kind]}
                    AND (queue, name) > ({kind}.queue, {kind}.name)
                ORDER BY queue, name LIMIT 1
            ) AS next
        )
    """


LANES = f"""
    WITH RECURSIVE {", ".join(_lanes(kind) for kind in WHERE)}
    {" UNION ALL ".join(f"SELECT '{kind}' AS kind, queue, name FROM {kind}" for kind in WHERE)}
"""

PAUSED = "SELECT kind, name FROM afterwards_paused"

_PAUSED_AS_JSON = f"(SELECT json_agg(json_build_array(kind, name)) FROM ({PAUSED}) AS paused)::text"

_PAUSE_LOCK = "hashtextextended({schema} || ':pause', 0)"

# Transactions that lease tasks share a lock that a pause takes alone. So a pause waits for those that have not seen it,
# and no task starts after it.
OPENING_OF_A_CLAIM = f"SELECT pg_advisory_xact_lock_shared({_PAUSE_LOCK}); SELECT {{clock}}, {_PAUSED_AS_JSON}"

LOCK_PAUSES = f"SELECT pg_advisory_xact_lock({_PAUSE_LOCK})"

OVERDUE = (
    "expires_at IS NOT NULL AND finished_at IS NULL AND expires_at <= {now} AND state NOT IN ('running', 'unreadable')"
)

LOOK = f"""
    SELECT {{now}},
        (SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled'),
        EXISTS (SELECT 1 FROM afterwards_tasks WHERE {OVERDUE}),
        {_PAUSED_AS_JSON},
        (SELECT json_agg(json_build_array(kind, queue, name)) FROM ({LANES}) AS lanes)::text
"""

DUE_LANES = "SELECT DISTINCT queue, name FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The state of the store at one instant."""

    now: datetime
    next_due: datetime | None  # when the first scheduled task is due
    is_any_overdue: bool
    paused: Paused  # without schedules
    lanes: dict[str, list[Route]]  # of queued tasks, by kind

    @property
    def is_any_due(self) -> bool:
        return self.next_due is not None and self.next_due <= self.now

    def served(self, claim: Claim, kind: str) -> list[Route]:
        """Return the lanes of this kind from which the worker may take tasks now."""
        return [route for route in self.lanes.get(kind, ()) if serves(claim, route) and not self.paused.stops(route)]


def serves(claim: Claim, route: Route) -> bool:
    return route.name in claim.names and (claim.queues is None or route.queue in claim.queues)


def look() -> Operation[Look]:
    return to_look((yield from fetch(LOOK)))


def to_look(found: Sequence[Row]) -> Look:
    """Return what ``LOOK`` has found."""
    [(now, next_due, is_any_overdue, paused, lanes)] = found
    by_kind: dict[str, list[Route]] = {}
    for kind, queue, name in json.loads(lanes or "[]"):
        by_kind.setdefault(kind, []).append(Route(name, queue))
    return Look(
        now=rows.to_instant(now),
        next_due=rows.to_instant(min(next_due, rows.LATEST)) if next_due is not None else None,
        is_any_overdue=is_any_overdue,
        paused=_of_json(paused),
        lanes=by_kind,
    )


def paused_at(work: Work) -> Paused:
    """Return the pauses that a transaction with ``OPENING_OF_A_CLAIM`` saw, which are in force until its end."""
    [paused] = work.opened_with
    return _of_json(paused)


def _of_json(paused: str | None) -> Paused:
    return to_paused(json.loads(paused or "[]"))


def to_paused(found: Iterable[Collection[str]]) -> Paused:
    kinds: dict[str, set[str]] = {"queue": set(), "name": set()}
    for kind, name in found:
        kinds.setdefault(kind, set()).add(name)
    return Paused(queues=frozenset(kinds["queue"]), names=frozenset(kinds["name"]))


def anything_for(claim: Claim, seen: Look) -> Operation[bool]:
    """Return True if a task without limits is queued or due that the worker could take, suspect or not."""
    lanes = {route for kind in WHERE for route in seen.served(claim, kind)}
    if seen.is_any_due:
        due = yield from fetch(DUE_LANES, rows.from_instant(seen.now))
        lanes |= {route for queue, name in due if serves(claim, route := Route(name, queue))}
    return any(route.name not in claim.limits and not seen.paused.stops(route) for route in lanes)
