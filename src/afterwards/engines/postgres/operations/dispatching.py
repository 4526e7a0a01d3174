"""Choose the tasks that a fleet may start, and mark them as sent.

Dispatchers do not wait for each other: one at a time chooses, and the others are told to look again. They take no locks
on tasks, so claims are not disturbed. A task that a claim takes at the same moment is at most sent once more, and what
arrives then is refused. Marks are written after everything else that a transaction locks, in the order of their keys.
"""

from collections.abc import Iterable
from datetime import timedelta

from afterwards.core import dispatching
from afterwards.core.clock_correction import CORRECTION
from afterwards.core.dispatching import FORGOTTEN_AFTER, Ahead, Mark
from afterwards.core.task import Lease
from afterwards.engine import Claim, Dispatch, Dispatched
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import candidates, looking, timing
from afterwards.engines.postgres.operations.candidates import Place
from afterwards.engines.postgres.operations.limiting import Rooms
from afterwards.engines.postgres.operations.looking import WHERE, Look
from afterwards.engines.postgres.rows import as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change

# Its opening says whether no other dispatcher chooses.
OPENING_OF_A_DISPATCH = "SELECT {now}, pg_try_advisory_xact_lock(hashtextextended({schema} || ':dispatch', 0))"

PUT_MARKS = f"""
    INSERT INTO afterwards_dispatches (task, attempt, at, sent)
    SELECT id, attempt, %s::bigint, sent FROM {recordset("new", ["id", "attempt"], sent="integer")} ORDER BY id, attempt
    ON CONFLICT (task, attempt) DO UPDATE SET at = excluded.at, sent = excluded.sent
"""

DELETE_ARRIVED = f"""
    DELETE FROM afterwards_dispatches WHERE (task, attempt) IN (
        SELECT mark.task, mark.attempt FROM {recordset("new", ["id", "attempt"])}
        JOIN afterwards_dispatches mark ON mark.task = new.id AND mark.attempt = new.attempt
        ORDER BY mark.task, mark.attempt FOR UPDATE OF mark
    )
"""

_FORGET = """
    DELETE FROM afterwards_dispatches WHERE (task, attempt) IN (
        SELECT task, attempt FROM afterwards_dispatches WHERE {condition} FOR UPDATE SKIP LOCKED
    )
"""

FORGET = _FORGET.format(condition="at <= %s")

FORGET_THOSE_AHEAD = _FORGET.format(condition="at > %s")

LAST_ATTEMPT = 2**31 - 1
"""The largest number that a column holds. What arrives may name any."""

LOOK_AGAIN = Dispatched([], more=True)


def is_needed(ahead: Claim, seen: Look) -> bool:
    """Return False if there is nothing to send, and nothing to do that the time demands."""
    return timing.is_needed(seen) or any(seen.served(ahead, kind) for kind in WHERE)


def dispatch(work: Work, ahead: Claim, again: timedelta, seen: Look) -> Operation[Dispatched]:
    """Return what to send, and mark it, in a transaction with ``OPENING_OF_A_DISPATCH``."""
    [has_turn] = work.opened_with
    if not has_turn or not (yield from timing.apply(work, seen)):
        return LOOK_AGAIN
    if timing.is_needed(seen):
        seen = yield from looking.look()
    rooms = Rooms(work, ahead)
    found = yield from candidates.first_of_each(work, ahead, seen, rooms)
    yield from rooms.load((place.name, place.limit_key) for place in found)
    rooms.note_next()
    taken = Ahead(ahead.limit)
    admitted = taken.admit(candidates.as_candidates(found, rooms), rooms.known, lambda place: place.queue)
    by_lease = {place.next_attempt: place for place in admitted}
    marks = {lease: mark for lease, place in by_lease.items() if (mark := _mark_of(place))}
    sent = dispatching.to_send(by_lease, marks, again, work.now)
    yield from _put(work, sent)
    return Dispatched([_dispatch_of(by_lease[mark.lease]) for mark in sent], taken.more)


def arrived(work: Work, leases: Iterable[Lease], *, is_refused: bool) -> Operation[None]:
    """Forget dispatches that have arrived. Those that are refused are sent again at once."""
    if known := [one for one in leases if rows.is_uuid(one.task_id) and 0 < one.attempt <= LAST_ATTEMPT]:
        forgotten = yield from change(DELETE_ARRIVED, as_json(map(_as_row, known)))
        work.queued |= is_refused and forgotten > 0


def forget(work: Work) -> Operation[None]:
    """Forget old dispatches: a translation of ``dispatching.forgotten``."""
    yield from change(FORGET, work.after(-FORGOTTEN_AFTER))
    yield from change(FORGET_THOSE_AHEAD, work.after(CORRECTION))


def _put(work: Work, marks: Iterable[Mark]) -> Operation[None]:
    if marks:
        yield from change(
            PUT_MARKS, work.instant, as_json({**_as_row(mark.lease), "sent": mark.sent} for mark in marks)
        )


def _as_row(lease: Lease) -> dict[str, object]:
    return {"id": lease.task_id, "attempt": lease.attempt}


def _mark_of(place: Place) -> Mark | None:
    if place.sent_at is None or place.sent is None:
        return None
    return Mark(lease=place.next_attempt, at=rows.to_instant(place.sent_at), sent=place.sent)


def _dispatch_of(place: Place) -> Dispatch:
    return Dispatch(lease=place.next_attempt, queue=place.queue, priority=place.priority)
