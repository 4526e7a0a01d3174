"""Find the queued tasks that a claim may take."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from afterwards.core import limits
from afterwards.core.limits import Group
from afterwards.core.routing import Route
from afterwards.engine import Claim
from afterwards.engines.postgres.operations import looking
from afterwards.engines.postgres.operations.limiting import Rooms
from afterwards.engines.postgres.operations.looking import LIMITED, QUEUED, SUSPECTS, WHERE, Look
from afterwards.engines.postgres.rows import known_ids
from afterwards.engines.postgres.work import Operation, Work, fetch

NOT_OVERDUE = "(t.expires_at IS NULL OR t.expires_at > %s)"

_PLACE = "t.seq, t.attempt, t.priority, t.suspect, t.name, t.limit_key"

# Each lane gives as many as all together may take. Those that are not taken are locked only until the end of this
# short transaction. So several workers that claim at the same time do not hinder each other.
FIRST_IN_LANES = f"""
    SELECT place.* FROM unnest(%s::text[], %s::text[]) AS lane (queue, name)
    CROSS JOIN LATERAL (
        SELECT {_PLACE} FROM afterwards_tasks t
        WHERE {{condition}} AND t.queue = lane.queue AND t.name = lane.name AND {NOT_OVERDUE}
        ORDER BY t.priority DESC, t.seq LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
    ) AS place
    ORDER BY place.priority DESC, place.seq LIMIT %s
"""

FIRST_QUEUED = FIRST_IN_LANES.format(condition=WHERE[QUEUED])

FIRST_SUSPECTS = FIRST_IN_LANES.format(condition=WHERE[SUSPECTS])

# Not locked: whoever claims limited tasks of a function holds the lock of the function.
FIRST_LIMITED = FIRST_IN_LANES.format(condition=WHERE[LIMITED]).replace("FOR NO KEY UPDATE SKIP LOCKED", "")

# One step in an index for each limit key, however many tasks have it.
FIRST_OF_EACH_KEY = f"""
    WITH RECURSIVE lane (queue, name, limit_key) AS (
        SELECT route.queue, route.name, first.limit_key
        FROM unnest(%s::text[], %s::text[]) AS route (queue, name)
        CROSS JOIN LATERAL (
            SELECT limit_key FROM afterwards_tasks t
            WHERE {WHERE[LIMITED]} AND t.queue = route.queue AND t.name = route.name
            ORDER BY limit_key LIMIT 1
        ) AS first
        UNION ALL
        SELECT lane.queue, lane.name, next.limit_key FROM lane CROSS JOIN LATERAL (
            SELECT limit_key FROM afterwards_tasks t
            WHERE {WHERE[LIMITED]} AND t.queue = lane.queue AND t.name = lane.name AND t.limit_key > lane.limit_key
            ORDER BY limit_key LIMIT 1
        ) AS next
    )
    SELECT place.* FROM lane CROSS JOIN LATERAL (
        SELECT {_PLACE} FROM afterwards_tasks t
        WHERE {WHERE[LIMITED]} AND t.queue = lane.queue AND t.name = lane.name AND t.limit_key = lane.limit_key
            AND {NOT_OVERDUE}
        ORDER BY t.priority DESC, t.seq LIMIT %s
    ) AS place
"""

BY_ID = f"""
    SELECT {_PLACE}, t.queue FROM afterwards_tasks t
    WHERE t.id = ANY (%s::uuid[]) AND t.state = 'queued' AND {NOT_OVERDUE}
    ORDER BY t.seq FOR NO KEY UPDATE SKIP LOCKED
"""

FIRST = 100
"""Limited tasks of a function to scan before falling back to one scan for each limit key."""


class Place(NamedTuple):
    """A queued task that could be taken."""

    seq: int
    attempt: int
    priority: int
    suspect: bool
    name: str
    limit_key: str


def places(work: Work, claim: Claim, seen: Look, rooms: Rooms) -> Operation[list[Place]]:
    """Return the places of the best tasks that the worker may take, from each lane at most as many as from all."""
    if claim.ids is not None:
        return (yield from _places_by_id(work, claim, claim.ids, seen))
    places: list[Place] = []
    if routes := seen.served(claim, QUEUED):
        places += yield from _first(work, FIRST_QUEUED, routes, claim.limit)
    if claim.suspects and (routes := seen.served(claim, SUSPECTS)):
        places += yield from _first(work, FIRST_SUSPECTS, routes, max(FIRST, claim.limit))
    if routes := seen.served(claim, LIMITED):
        places += yield from _limited_places(work, claim, routes, rooms)
    return places


def _first(
    work: Work, statement: str, routes: Sequence[Route], most: int, in_all: int | None = None
) -> Operation[list[Place]]:
    queues, names = [route.queue for route in routes], [route.name for route in routes]
    found = yield from fetch(statement, queues, names, work.instant, most, in_all or most)
    return [Place(*row) for row in found]


def _limited_places(work: Work, claim: Claim, routes: Sequence[Route], rooms: Rooms) -> Operation[list[Place]]:
    """Return the places of the first tasks in all lanes that may start. If these are not enough, scan each lane.

    The first tasks usually suffice. This way neither a flood for one key nor very many keys keep the others waiting.
    """
    looked_at = max(FIRST, 2 * claim.limit)
    first = yield from _first(work, FIRST_LIMITED, routes, looked_at, looked_at * len(routes))
    yield from rooms.load((place.name, place.limit_key) for place in first)
    by_route: dict[str, list[Place]] = {}
    for place in first:
        by_route.setdefault(place.name, []).append(place)
    crowded = [
        route
        for route in routes
        if len(of_route := by_route.get(route.name, [])) >= looked_at
        and len([*limits.admit(_candidates(of_route, rooms), rooms.known, limit=claim.limit, suspects=0)]) < claim.limit
    ]
    if not crowded:
        return first
    queues, names = [route.queue for route in crowded], [route.name for route in crowded]
    found = yield from fetch(FIRST_OF_EACH_KEY, queues, names, work.instant, claim.limit)
    return [*{place.seq: place for place in (*first, *(Place(*row) for row in found))}.values()]


def _candidates(places: Iterable[Place], rooms: Rooms) -> Iterable[tuple[Place, bool, Group]]:
    return ((place, False, rooms.group(place.name, place.limit_key)) for place in places)


def _places_by_id(work: Work, claim: Claim, ids: Iterable[str], seen: Look) -> Operation[list[Place]]:
    found = yield from fetch(BY_ID, known_ids(ids), work.instant)
    places = [(Place(*place), Route(place[4], queue)) for *place, queue in found]
    return [place for place, route in places if looking.serves(claim, route) and not seen.paused.stops(route)]
