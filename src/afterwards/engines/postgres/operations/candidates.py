"""Find the queued tasks that may start, for a claim or for a dispatch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from afterwards.core import limits
from afterwards.core.limits import Candidate
from afterwards.core.routing import Route
from afterwards.core.task import Lease
from afterwards.engine import Claim
from afterwards.engines.postgres.operations import looking
from afterwards.engines.postgres.operations.limiting import Rooms
from afterwards.engines.postgres.operations.looking import LIMITED, QUEUED, SUSPECTS, WHERE, Look
from afterwards.engines.postgres.rows import known_ids
from afterwards.engines.postgres.work import Operation, Work, fetch

NOT_OVERDUE = "(t.expires_at IS NULL OR t.expires_at > %s)"

_PLACE = "t.seq, t.id, t.attempt, t.priority, t.suspect, t.queue, t.name, t.limit_key"

_READ = _PLACE.replace("t.id", "t.id::text").replace("t.", "place.")

# Each lane gives as many as all together may take. Those that are not taken are locked only until the end of this
# short transaction. So several workers that claim at the same time do not hinder each other.
_FIRST_IN_LANES = f"""
    SELECT {{columns}} FROM unnest(%s::text[], %s::text[]) AS lane (queue, name)
    CROSS JOIN LATERAL (
        SELECT {_PLACE} FROM afterwards_tasks t
        WHERE {{condition}} AND t.queue = lane.queue AND t.name = lane.name AND {NOT_OVERDUE}
        ORDER BY t.priority DESC, t.seq LIMIT %s {{lock}}
    ) AS place {{join}}
    ORDER BY place.priority DESC, place.seq LIMIT %s
"""

# One step in an index for each limit key, however many tasks have it.
_FIRST_OF_EACH_KEY = f"""
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
    SELECT {{columns}} FROM lane CROSS JOIN LATERAL (
        SELECT {_PLACE} FROM afterwards_tasks t
        WHERE {WHERE[LIMITED]} AND t.queue = lane.queue AND t.name = lane.name AND t.limit_key = lane.limit_key
            AND {NOT_OVERDUE}
        ORDER BY t.priority DESC, t.seq LIMIT %s
    ) AS place {{join}}
"""

BY_ID = f"""
    SELECT {_READ.replace("place.", "t.")} FROM afterwards_tasks t
    WHERE t.id = ANY (%s::uuid[]) AND t.state = 'queued' AND {NOT_OVERDUE}
    ORDER BY t.seq FOR NO KEY UPDATE SKIP LOCKED
"""


class Search(NamedTuple):
    """The statements that find the first tasks in lanes."""

    queued: str
    suspects: str
    limited: str
    of_each_key: str


def _search(columns: str, *, lock: str = "", join: str = "") -> Search:
    first = {
        kind: _FIRST_IN_LANES.format(condition=condition, columns=columns, lock=lock, join=join)
        for kind, condition in WHERE.items()
    }
    limited = first[LIMITED].replace(lock, "")  # whoever claims limited tasks of a function holds the function's lock
    return Search(first[QUEUED], first[SUSPECTS], limited, _FIRST_OF_EACH_KEY.format(columns=columns, join=join))


TO_CLAIM = _search(_READ, lock="FOR NO KEY UPDATE SKIP LOCKED")

# Nothing is locked, so no claim passes by what a dispatcher looks at. Each row comes with its mark: a row and its mark
# are of one snapshot, so a task that has arrived meanwhile is not taken for one that was never sent.
TO_DISPATCH = _search(
    f"{_READ}, mark.at, mark.sent",
    join="LEFT JOIN afterwards_dispatches mark ON mark.task = place.id AND mark.attempt = place.attempt + 1",
)

FIRST = 100
"""Limited tasks of a function to scan before falling back to one scan for each limit key."""


class Place(NamedTuple):
    """A queued task that could be taken."""

    seq: int
    id: str
    attempt: int
    priority: int
    suspect: bool
    queue: str
    name: str
    limit_key: str
    sent_at: int | None = None  # when its next attempt was dispatched, if it may be on its way
    sent: int | None = None

    @property
    def next_attempt(self) -> Lease:
        return Lease(self.id, self.attempt + 1)


def first(work: Work, claim: Claim, seen: Look, rooms: Rooms) -> Operation[list[Place]]:
    """Return the places of the best tasks that the worker may take, from each lane at most as many as from all."""
    return (yield from _first(work, TO_CLAIM, claim, seen, rooms, each=False))


def first_of_each(work: Work, ahead: Claim, seen: Look, rooms: Rooms) -> Operation[list[Place]]:
    """Return the places of the best tasks of each lane, suspects too, with their marks. Nothing is locked."""
    return (yield from _first(work, TO_DISPATCH, ahead, seen, rooms, each=True))


def named(work: Work, claim: Claim, seen: Look) -> Operation[list[Place]]:
    """Return the places of those tasks and attempts that the claim names."""
    starts, ids = claim.starts, claim.ids
    if ids is None:
        ids = frozenset(lease.task_id for lease in starts or ())
    found = [Place(*row) for row in (yield from fetch(BY_ID, known_ids(ids), work.instant))]
    routes = {route: looking.serves(claim, route) and not seen.paused.stops(route) for route in map(_route, found)}
    return [place for place in found if routes[_route(place)] and (starts is None or place.next_attempt in starts)]


def as_candidates(places: Iterable[Place], rooms: Rooms) -> list[Candidate[Place]]:
    """Return places in the order of a claim, as the rule about limits takes them."""
    ordered = sorted(places, key=lambda place: (-place.priority, place.seq))
    return [(place, place.suspect, rooms.group(place.name, place.limit_key)) for place in ordered]


def _route(place: Place) -> Route:
    return Route(place.name, place.queue)


def _first(work: Work, search: Search, claim: Claim, seen: Look, rooms: Rooms, *, each: bool) -> Operation[list[Place]]:
    """Return the first places of each lane; unless ``each``, no more than all lanes together may give."""
    places: list[Place] = []
    if routes := seen.served(claim, QUEUED):
        places += yield from _first_in(work, search.queued, routes, claim.limit, each=each)
    if (claim.suspects or each) and (routes := seen.served(claim, SUSPECTS)):
        places += yield from _first_in(work, search.suspects, routes, max(FIRST, claim.limit), each=each)
    if routes := seen.served(claim, LIMITED):
        places += yield from _limited(work, search, claim, routes, rooms)
    return places


def _first_in(work: Work, statement: str, routes: Sequence[Route], most: int, *, each: bool) -> Operation[list[Place]]:
    queues, names = [route.queue for route in routes], [route.name for route in routes]
    in_all = most * len(routes) if each else most
    return [Place(*row) for row in (yield from fetch(statement, queues, names, work.instant, most, in_all))]


def _limited(work: Work, search: Search, claim: Claim, routes: Sequence[Route], rooms: Rooms) -> Operation[list[Place]]:
    """Return the places of the first tasks in all lanes that may start. If these are not enough, scan each lane.

    The first tasks usually suffice. This way neither a flood for one key nor very many keys keep the others waiting.
    """
    looked_at = max(FIRST, 2 * claim.limit)
    first = yield from _first_in(work, search.limited, routes, looked_at, each=True)
    yield from rooms.load((place.name, place.limit_key) for place in first)
    found = Counter(map(_route, first))
    admitted = limits.admit(as_candidates(first, rooms), rooms.known, limit=len(first), suspects=0)
    may_start = Counter(map(_route, admitted))
    crowded = [route for route in routes if found[route] >= looked_at and may_start[route] < claim.limit]
    if not crowded:
        return first
    queues, names = [route.queue for route in crowded], [route.name for route in crowded]
    of_each_key = yield from fetch(search.of_each_key, queues, names, work.instant, min(claim.limit, FIRST))
    return [*{place.seq: place for place in (*first, *(Place(*row) for row in of_each_key))}.values()]
