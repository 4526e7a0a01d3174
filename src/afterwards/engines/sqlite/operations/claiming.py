"""Claim tasks. Every function runs in a transaction that others share."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from afterwards.core import limits
from afterwards.core.limits import Candidate, Group
from afterwards.core.routing import Route
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite import many, parsing, placeholders, rows, shapes
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Connection, Look
from afterwards.engines.sqlite.operations import set_aside
from afterwards.engines.sqlite.operations.limiting import Rooms
from afterwards.engines.sqlite.operations.skip_scan import INNOCENT, SUSPECT, Bundle, Lane, bundles, is_any, lanes
from afterwards.engines.sqlite.shapes import UnreadableRow

PROMOTE = """
    UPDATE afterwards_tasks SET state = 'queued', queued_at = run_at, run_at = NULL WHERE seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?
    )
"""

TO_TAKE = {
    "state": "'running'",
    "attempt": "CASE typeof(attempt) WHEN 'integer' THEN attempt + 1 ELSE attempt END",  # other types stay as they are
    "run_at": "NULL",
    "worker": "?",
    "lease_until": "?",
    "started_at": "?",
    "progress": "NULL",
}
"""The changes of a row whose task a worker takes. They translate ``lifecycle.claim``."""

TAKE = f"""
    UPDATE afterwards_tasks SET {", ".join(f"{column} = {value}" for column, value in TO_TAKE.items())}
    WHERE seq IN ({{places}})
"""

# The rows after the change: unreadable values are found before any row is changed.
TAKEN = f"""
    SELECT {", ".join(TO_TAKE.get(column, column) for column in COLUMNS.replace(",", " ").split())}
    FROM afterwards_tasks WHERE seq IN ({{places}})
"""

FIRST = 100
"""Limited tasks of a function to scan before falling back to one scan for each limit key."""

MOST_PROMOTED = 1000
"""Due tasks that one claim queues, so that no transaction takes long if very many become due together."""

MOST_SET_ASIDE = 1000
"""Tasks that one claim sets aside, with a new search each time, so that no transaction takes long."""

Place = tuple[int, int, int, Group, str]
"""The place of a queued task: minus its priority, its seq, whether it is a suspect, its group, and its queue."""

QUEUED_BY_ID = """
    SELECT -priority, seq, suspect, queue, name, limit_key, id, attempt FROM afterwards_tasks
    WHERE id IN ({places}) AND state = 'queued'
"""


def claim(connection: Connection, claim: Claim, look: Look) -> list[Task]:
    look = promote(connection, look)
    taken: list[Task] = []
    for _ in searches(connection):
        some = _claim(connection, claim, look)
        taken += some
        if connection.set_aside:  # rare: others come instead
            suspects = sum(task.suspect for task in some)
            claim = replace(claim, limit=claim.limit - len(some), suspects=max(0, claim.suspects - suspects))
    return taken


def searches(connection: Connection) -> Iterator[None]:
    """Yield for each search of the queued tasks: a row that one sets aside leaves its place to another."""
    while len(connection.set_aside) < MOST_SET_ASIDE:
        before = len(connection.set_aside)
        yield
        if connection.odd_lanes:
            set_aside.clear_lanes(connection)
        if len(connection.set_aside) == before:  # the usual case
            return
    connection.queued = True  # more tasks are behind those set aside: search again


def _claim(connection: Connection, claim: Claim, look: Look) -> list[Task]:
    rooms = Rooms(connection, claim)
    found = sorted(places(connection, claim, look, rooms))
    candidates = ((seq, suspect == SUSPECT, group) for _, seq, suspect, group, _ in found)
    seqs = list(limits.admit(candidates, rooms.known, limit=claim.limit, suspects=claim.suspects))
    taken = [task for some in placeholders.pieces(seqs) for task in _take(connection, claim, some)]
    rooms.note(taken)
    return taken


def is_there_any(connection: Connection, claim: Claim) -> bool:
    """Return True if a claim would take, promote or cancel anything, as far as known without checking limits."""
    look = connection.look()
    if look.due or look.overdue:
        return True
    if claim.ids is not None or claim.starts:
        return True  # some may have to be brought back, or are on their way no more
    suspicions = (INNOCENT, SUSPECT) if claim.suspects else (INNOCENT,)
    any_queued = claim.limit > 0 and any(is_any(connection, claim, look, one) for one in suspicions)
    return any_queued or connection.odd_lanes


def anything_for(connection: Connection, claim: Claim) -> bool:
    """Return True if a task without limits is stored that the worker could take, or could but for its suspicion."""
    wanted = claim.names, claim.queues, claim.ids, claim.starts
    if not connection.queued and connection.idle_for == wanted:  # asked before in this transaction
        return False
    connection.flush()
    found = _anything_for(connection, claim)
    connection.idle_for = None if found else wanted
    return found


def _anything_for(connection: Connection, claim: Claim) -> bool:
    look = connection.look()
    if not (look.queued or look.limited or look.due):
        return False
    look = promote(connection, look)
    claim = replace(claim, names=claim.names - frozenset(claim.limits)) if claim.limits else claim
    if (named := _named(claim)) is not None:
        return any(True for _ in _places_by_id(connection, claim, named))
    return any(is_any(connection, claim, look, suspicion) for suspicion in (INNOCENT, SUSPECT))


def promote(connection: Connection, look: Look) -> Look:
    """Queue tasks that are due. Returns the work that there is now."""
    if not look.due:
        return look
    connection.execute(PROMOTE, (connection.instant, MOST_PROMOTED))
    connection.queued = True  # other workers may serve tasks that this worker does not
    return connection.look()


def places(connection: Connection, claim: Claim, look: Look, rooms: Rooms, *, queues: int = 1) -> Iterator[Place]:
    """Yield the places of the best tasks that the worker may take, from each lane at most as many as from all.

    These also suffice for as many tasks from each of ``queues`` queues: the tasks of another queue may use up the room
    of as many of a bundle's tasks as that queue gives.
    """
    if (named := _named(claim)) is not None:
        yield from _places_by_id(connection, claim, named, rooms)
        return
    for suspicion, most in ((INNOCENT, claim.limit), (SUSPECT, min(claim.limit, claim.suspects))):
        if most > 0:
            for lane in lanes(connection, claim, look, suspicion):
                yield from _places_in(connection, lane, rooms, most)
            for bundle in bundles(connection, claim, look, suspicion):
                yield from _places_beside(connection, bundle, rooms, most * queues)


def _places_in(connection: Connection, lane: Lane, rooms: Rooms, most: int) -> Iterator[Place]:
    group = rooms.group(lane.name, lane.limit_key)
    if left := rooms.left(group, most):
        for place in lane.places(connection, left):
            yield (*place, group, lane.queue)


def _places_beside(connection: Connection, bundle: Bundle, rooms: Rooms, most: int) -> Iterator[Place]:
    """Yield the places of the first tasks in all lanes that may start. If these are not enough, scan each lane.

    The first tasks usually suffice. This way neither a flood for one key nor very many keys keep the others waiting.
    """
    looked_at = max(FIRST, 2 * most)
    first = bundle.first(connection, looked_at)
    candidates: list[Candidate[Place]] = []
    for *place, limit_key in first:
        if not shapes.is_text(limit_key):
            connection.odd_lanes = True
            continue
        group = rooms.group(bundle.name, limit_key)
        rooms.look_up(group)
        candidates.append((cast(Place, (*place, group, bundle.queue)), False, group))
    found = list(limits.admit(candidates, rooms.known, limit=most, suspects=0))
    if len(found) >= most or len(first) < looked_at:
        yield from found
        return
    for lane in bundle.lanes(connection):
        yield from _places_in(connection, lane, rooms, most)


def _named(claim: Claim) -> Collection[str] | None:
    """Return the ids of the only tasks that the worker may take, None if it may take any."""
    if claim.starts is None:
        return claim.ids
    arrived = {lease.task_id for lease in claim.starts}
    return arrived if claim.ids is None else arrived & claim.ids


def _places_by_id(
    connection: Connection, claim: Claim, ids: Collection[str], rooms: Rooms | None = None
) -> Iterator[Place]:
    found = many.select(connection, QUEUED_BY_ID, [rows.key(id) for id in ids])
    for *place, queue, name, limit_key, id, attempt in found:
        served = name in claim.names and (claim.queues is None or queue in claim.queues) and _starts(claim, id, attempt)
        group = limits.group_of(name, limit_key, claim.limits)
        if (
            served
            and not connection.paused.stops(Route(name, queue))
            and (rooms is None or rooms.left(group, claim.limit))
        ):
            yield cast(Place, (*place, group, queue))


def _starts(claim: Claim, id: bytes, attempt: Any) -> bool:
    """Return True if the next attempt of a task may start by this claim."""
    return claim.starts is None or (isinstance(attempt, int) and Lease(rows.to_id(id), attempt + 1) in claim.starts)


def _take(connection: Connection, claim: Claim, seqs: Sequence[int]) -> list[Task]:
    """Lease the tasks at these places, in this order."""
    values = _values(connection, claim)
    taken = _as_taken(connection, values, seqs)
    if taken:
        named = placeholders.padded([*taken])
        connection.execute(placeholders.sized(TAKE, len(named)), (*values, *named))
    return [*taken.values()]


def as_taken(connection: Connection, claim: Claim, seqs: Sequence[int]) -> dict[int, Task]:
    """Return the tasks at these places as they would be after the claim. Set aside those that it could not take."""
    tasks: dict[int, Task] = {}
    for some in placeholders.pieces(seqs):
        tasks |= _as_taken(connection, _values(connection, claim), some)
    return tasks


def _values(connection: Connection, claim: Claim) -> tuple[str, int, int]:
    """Return the values of ``TO_TAKE``."""
    return claim.worker, connection.after(claim.lease), connection.instant


def _as_taken(connection: Connection, values: Sequence[Any], seqs: Sequence[int]) -> dict[int, Task]:
    named = placeholders.padded(seqs)
    found = {row[-1]: row for row in connection.execute(placeholders.sized(TAKEN, len(named)), (*values, *named))}
    tasks: dict[int, Task] = {}
    for seq in seqs:
        try:
            if connection.odd_texts:
                shapes.check_texts(found[seq])
            tasks[seq] = parsing.to_task(found[seq])
        except UnreadableRow as error:
            set_aside.put(connection, found[seq], str(error))
    return tasks
