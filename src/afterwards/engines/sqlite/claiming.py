"""Claim tasks and keep their leases. Every function runs in a transaction that others share."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import cast

from afterwards.core import limits
from afterwards.core.limits import Group
from afterwards.core.task import Task
from afterwards.engine import Claim, Heartbeat, Held
from afterwards.engines.sqlite import reading, rows, statements
from afterwards.engines.sqlite.connection import Connection
from afterwards.engines.sqlite.limiting import Rooms

MOST_PROMOTED = 1000
"""Due tasks that one claim queues: when very many become due together, no transaction takes long."""

SIZES = (1, 8, 64, 256)
"""How many places one statement names, so that few statements are ever prepared; old versions allow 999."""

INNOCENT, SUSPECT = 0, 1

Place = tuple[int, int, int, Group]
"""Where a queued task stands: minus its priority, its seq, whether it is a suspect; and what it counts with."""

Lane = tuple[int, str, str, str]
"""Suspects or not, queue, name, limit key."""


def claim(connection: Connection, claim: Claim) -> list[Task]:
    promote(connection)
    rooms = Rooms(connection, claim)
    candidates = (
        (seq, suspect == SUSPECT, group) for _, seq, suspect, group in sorted(_places(connection, claim, rooms))
    )
    seqs = list(limits.admit(candidates, rooms.known, limit=claim.limit, suspects=claim.suspects))
    taken = [task for some in _in_batches(seqs) for task in _take(connection, claim, some)]
    rooms.note(taken)
    return taken


def is_there_any(connection: Connection, claim: Claim) -> bool:
    """Whether a claim would take, promote or cancel anything, as far as can be told without looking at limits."""
    for statement in (statements.ANY_DUE, statements.ANY_OVERDUE):
        if connection.execute(statement, (connection.instant,)).fetchone():
            return True
    if claim.ids is not None:
        return any(True for _ in _places_by_id(connection, claim, claim.ids))
    suspicions = (INNOCENT, SUSPECT) if claim.suspects else (INNOCENT,)
    return claim.limit > 0 and any(True for one in suspicions for _ in _lanes(connection, claim, one))


def anything_for(connection: Connection, claim: Claim) -> bool:
    """Whether something without limits is stored that the worker could take, or may not only for its suspicion."""
    wanted = claim.names, claim.queues, claim.ids
    if not connection.queued and connection.idle_for == wanted:  # asked before in this transaction
        return False
    connection.flush()
    found = _anything_for(connection, claim)
    connection.idle_for = None if found else wanted
    return found


def _anything_for(connection: Connection, claim: Claim) -> bool:
    [ready] = connection.execute(statements.ANYTHING_READY, (connection.instant,)).fetchone()
    if not ready:
        return False
    promote(connection)
    claim = replace(claim, names=claim.names - frozenset(claim.limits)) if claim.limits else claim
    if claim.ids is not None:
        return any(True for _ in _places_by_id(connection, claim, claim.ids))
    return any(True for suspicion in (INNOCENT, SUSPECT) for _ in _lanes(connection, claim, suspicion))


def promote(connection: Connection) -> None:
    """Queue what is due."""
    if connection.execute(statements.ANY_DUE, (connection.instant,)).fetchone():
        connection.execute(statements.PROMOTE, (connection.instant, MOST_PROMOTED))
        connection.queued = True  # others may serve what this worker does not


def heartbeat(connection: Connection, beats: Sequence[Heartbeat], lease: timedelta) -> list[Held]:
    until = connection.after(lease)
    return [
        Held(beat.lease, _beaten(connection, beat))
        for beat in beats
        if connection.execute(statements.HEARTBEAT, (until, rows.key(beat.lease.task_id), beat.lease.attempt)).rowcount
    ]


def _beaten(connection: Connection, beat: Heartbeat) -> str | None:
    """Keep the progress of a beat that counted; why the task should stop."""
    key = rows.key(beat.lease.task_id)
    if beat.progress is not None:
        connection.execute(statements.PROGRESS, (beat.progress.to_text(), key))
    [reason] = connection.execute(statements.CANCEL_REQUESTED, (key,)).fetchone()
    return cast("str | None", reason)


def expire(connection: Connection, workers: Collection[str]) -> None:
    """End the leases of workers that are dead."""
    now = connection.instant
    connection.executemany(statements.EXPIRE, [(now, worker, now) for worker in workers])


def _places(connection: Connection, claim: Claim, rooms: Rooms) -> Iterator[Place]:
    """Where the best of what the worker may take stand, no more of each lane than it may take of all."""
    if claim.ids is not None:
        yield from _places_by_id(connection, claim, claim.ids, rooms)
        return
    for suspicion, most in ((INNOCENT, claim.limit), (SUSPECT, min(claim.limit, claim.suspects))):
        for lane in _lanes(connection, claim, suspicion) if most > 0 else ():
            group = limits.group_of(*lane[2:])
            if left := rooms.left(group, most):
                for place in connection.execute(statements.LANE, (*lane, left)):
                    yield (*place, group)


def _places_by_id(
    connection: Connection, claim: Claim, ids: Iterable[str], rooms: Rooms | None = None
) -> Iterator[Place]:
    for id in ids:
        for *place, queue, name, limit_key in connection.execute(statements.QUEUED_BY_ID, (rows.key(id),)).fetchall():
            served = name in claim.names and (claim.queues is None or queue in claim.queues)
            group = limits.group_of(name, limit_key)
            paused = queue in connection.paused.queues or name in connection.paused.names
            if served and not paused and (rooms is None or rooms.left(group, claim.limit)):
                yield cast(Place, (*place, group))


def _lanes(connection: Connection, claim: Claim, suspicion: int) -> Iterator[Lane]:
    """The lanes in which something is queued for the worker. What others serve is jumped over, however much it is."""
    paused = connection.paused
    names = claim.names - paused.names if paused.names else claim.names
    for queue in present(connection, statements.NEXT_QUEUE, (suspicion,), claim.queues):
        if queue not in paused.queues:
            for name in present(connection, statements.NEXT_NAME, (suspicion, queue), names):
                for limit_key in present(connection, statements.NEXT_LIMIT_KEY, (suspicion, queue, name), None):
                    yield suspicion, queue, name, limit_key


def present(
    connection: Connection, statement: str, above: Sequence[object], wanted: frozenset[str] | None
) -> Iterator[str]:
    """Those of the wanted values that an index holds (None: all of them), by one look per value."""
    start = "" if wanted is None else next(iter(_ordered(wanted)), None)
    while start is not None and (row := connection.execute(statement, (*above, start)).fetchone()):
        [found] = row
        if wanted is None or found in wanted:
            yield found
        start = _behind(found, wanted)


def _behind(found: str, wanted: frozenset[str] | None) -> str | None:
    """Where to look next; None when nothing can be left."""
    if wanted is None:
        return found + "\0"
    ordered = _ordered(wanted)
    index = bisect_right(ordered, found)
    return ordered[index] if index < len(ordered) else None


@lru_cache(maxsize=32)
def _ordered(wanted: frozenset[str]) -> list[str]:
    """In the order in which SQLite, too, compares text: by code points."""
    return sorted(wanted)


def _take(connection: Connection, claim: Claim, seqs: Sequence[int]) -> list[Task]:
    """Lease the tasks at these places, in this order."""
    size = next(size for size in SIZES if size >= len(seqs))
    padded = [*seqs, *[seqs[-1]] * (size - len(seqs))]
    until = connection.after(claim.lease)
    connection.execute(statements.sized(statements.TAKE, size), (claim.worker, until, connection.instant, *padded))
    found = {row[-1]: row for row in connection.execute(statements.sized(statements.TAKEN, size), padded)}
    return reading.to_tasks(connection, [found[seq] for seq in seqs], unfailed=1)


def _in_batches(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(seqs), SIZES[-1]):
        yield seqs[start : start + SIZES[-1]]
