"""Claim tasks: take the places that a claim may have, in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from afterwards.core import limits
from afterwards.core.limits import UNLIMITED
from afterwards.core.routing import Route
from afterwards.core.task import Task
from afterwards.engine import Claim
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import candidates, dispatching, finishing, looking, set_aside, timing
from afterwards.engines.postgres.operations.candidates import NOT_OVERDUE, Place
from afterwards.engines.postgres.operations.limiting import Rooms
from afterwards.engines.postgres.operations.looking import LIMITED, QUEUED, SUSPECTS, WHERE, Look
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row, as_json, recordset
from afterwards.engines.postgres.work import Conflict, Operation, Request, Work, begin, change, fetch, fetch_all


def _update(lease_until: str, now: str) -> str:
    return f"""
        UPDATE afterwards_tasks t SET
            state = 'running', attempt = t.attempt + 1, run_at = NULL, worker = %s, lease_until = {lease_until},
            started_at = {now}, progress = NULL, since = NULL
        FROM old WHERE t.seq = old.seq
    """


# The usual claim in one statement: of tasks without limits that are no suspects. It is sent with the beginning of its
# transaction, so it finds out the time, and returns it.
TAKE_FIRST = f"""
    WITH moment AS MATERIALIZED (SELECT {{clock}} AS now), old AS MATERIALIZED (
        SELECT place.* FROM unnest(%s::text[], %s::text[]) AS lane (queue, name)
        CROSS JOIN LATERAL (
            SELECT {COLUMNS} FROM afterwards_tasks t
            WHERE {WHERE[QUEUED]} AND t.queue = lane.queue AND t.name = lane.name
                AND {NOT_OVERDUE.replace("%s", "(SELECT now FROM moment)")}
            ORDER BY t.priority DESC, t.seq LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
        ) AS place
        ORDER BY place.priority DESC, place.seq LIMIT %s
    ), new AS ({_update("(SELECT now FROM moment) + %s", "(SELECT now FROM moment)")})
    SELECT (SELECT now FROM moment), old.* FROM old ORDER BY priority DESC, seq
"""

# It returns the rows as they were: a row that cannot be read is put back. The translation of `lifecycle.claim`.
TAKE = f"""
    WITH old AS (
        SELECT {COLUMNS} FROM afterwards_tasks t JOIN unnest(%s::bigint[], %s::integer[]) AS chosen (seq, attempt)
            ON t.seq = chosen.seq AND t.attempt = chosen.attempt
        WHERE t.state = 'queued' FOR NO KEY UPDATE OF t SKIP LOCKED
    ), new AS ({_update("%s", "%s")})
    SELECT * FROM old
"""

_TAKEN = ("attempt", "run_at", "worker", "lease_until", "started_at", "progress")

GIVE_BACK = f"""
    UPDATE afterwards_tasks t SET state = 'queued', {", ".join(f"{column} = new.{column}" for column in _TAKEN)}
    FROM {recordset("new", ["seq", *_TAKEN])} WHERE t.seq = new.seq
"""

MOST_SET_ASIDE = 1000
"""Tasks that one claim sets aside, with a new search each time, so that no transaction takes long."""


def is_needed(claim: Claim, seen: Look) -> bool:
    """Return False if a claim would neither take, promote, bring back nor cancel anything."""
    if timing.is_needed(seen) or claim.ids is not None or claim.starts is not None:
        return True
    kinds = (QUEUED, LIMITED, SUSPECTS) if claim.suspects else (QUEUED, LIMITED)
    return claim.limit > 0 and any(seen.served(claim, kind) for kind in kinds)


def claim(work: Work, claim: Claim, seen: Look) -> Operation[list[Task]]:
    """Lease tasks in a transaction with ``OPENING_OF_A_CLAIM``. ``seen`` may be of a moment before."""
    if not work.repeated and is_usual(claim, seen):
        yield from _claim_readable(work, claim, seen)
        if _is_any_paused(work, seen.served(claim, QUEUED)):
            raise Conflict  # meanwhile: it is repeated without haste
        return work.leased
    yield from begin(work)
    return (yield from _claim_with_care(work, claim, seen))


def claim_again(work: Work, claim: Claim, routes: Sequence[Route]) -> Operation[list[Task]]:
    """Lease the first tasks of the lanes that had some a moment before, and look whether all is as usual.

    Both are sent at once. If the look shows that a claim has to do something else, it is repeated with care.
    """
    if work.repeated:
        return (yield from _claim_with_care(work, claim, (yield from looking.look())))
    found, taken = yield from fetch_all((looking.LOOK, ()), _take_first(claim, routes))
    seen = looking.to_look(found)
    is_as_before = is_usual(claim, seen) and {*routes}.issuperset(seen.served(claim, QUEUED))
    if taken and not (is_as_before and not _is_any_paused(work, routes)):
        raise Conflict
    if taken:
        work.leased += yield from _taken_first(work, claim, routes, taken)
    if work.set_aside or (not taken and not is_as_before and is_needed(claim, seen)):
        yield from _claim_with_care(work, replace(claim, limit=claim.limit - len(work.leased)), seen)
    return work.leased


def _claim_with_care(work: Work, claim: Claim, seen: Look) -> Operation[list[Task]]:
    seen = replace(seen, paused=looking.paused_at(work))
    if claim.ids is not None:
        yield from finishing.bring_back(work, claim.ids)
    if (yield from timing.apply(work, seen)):
        is_changed = timing.is_needed(seen) or claim.ids is not None
        yield from _claim_readable(work, claim, (yield from looking.look()) if is_changed else seen)
    if claim.starts is not None:
        yield from dispatching.arrived(work, claim.starts, is_refused=claim.limit < 1)
    return work.leased


def is_usual(claim: Claim, seen: Look) -> bool:
    """Return True if one statement is enough, unless others change something meanwhile."""
    return not timing.is_needed(seen) and _is_plain(claim, seen) and claim.limit > 0


def _is_any_paused(work: Work, routes: Iterable[Route]) -> bool:
    return any(map(looking.paused_at(work).stops, routes))


def _claim_readable(work: Work, claim: Claim, seen: Look) -> Operation[None]:
    """Lease tasks that can be read, and set aside the others."""
    while len(work.set_aside) < MOST_SET_ASIDE:
        before = len(work.set_aside)
        taken = yield from _claim(work, claim, seen)
        work.leased += taken
        if len(work.set_aside) == before:  # the usual case
            return
        suspects = sum(task.suspect for task in taken)
        claim = replace(claim, limit=claim.limit - len(taken), suspects=max(0, claim.suspects - suspects))
    work.queued = True  # more tasks are behind those set aside: claim again


def _claim(work: Work, claim: Claim, seen: Look) -> Operation[list[Task]]:
    if claim.limit < 1:
        return []
    if _is_plain(claim, seen):
        routes = seen.served(claim, QUEUED)
        statement, values = _take_first(claim, routes)
        return (yield from _taken_first(work, claim, routes, (yield from fetch(statement, *values))))
    rooms = Rooms(work, claim)
    if _names_tasks(claim):
        found = yield from candidates.named(work, claim, seen)
        yield from rooms.lock(place.name for place in found)
    else:
        yield from rooms.lock(route.name for kind in WHERE for route in seen.served(claim, kind))
        found = yield from candidates.first(work, claim, seen, rooms)
    yield from rooms.load((place.name, place.limit_key) for place in found)
    places = candidates.as_candidates(found, rooms)
    chosen = [*limits.admit(places, rooms.known, limit=claim.limit, suspects=claim.suspects)]
    taken = (yield from _take(work, claim, chosen)) if chosen else []
    yield from rooms.note(taken)
    work.passed_by |= len(taken) < len(chosen)
    left = {*found} - {*chosen}  # those without a limit were locked, and others have passed them by
    work.queued |= bool(taken) and any(place.suspect or place.limit_key == UNLIMITED for place in left)
    return taken


def _is_plain(claim: Claim, seen: Look) -> bool:
    """Return True if no limit and no suspicion has a part in the claim."""
    others = seen.served(claim, LIMITED) or (claim.suspects and seen.served(claim, SUSPECTS))
    limited = any(route.name in claim.limits for route in seen.served(claim, QUEUED))
    return not (_names_tasks(claim) or others or limited)


def _names_tasks(claim: Claim) -> bool:
    return claim.ids is not None or claim.starts is not None


def _take_first(claim: Claim, routes: Sequence[Route]) -> Request:
    """Return the statement that leases the first tasks of these lanes."""
    queues, names = [route.queue for route in routes], [route.name for route in routes]
    return TAKE_FIRST, (queues, names, claim.limit, claim.limit, claim.worker, rows.from_span(claim.lease))


def _taken_first(work: Work, claim: Claim, routes: Sequence[Route], found: Sequence[Row]) -> Operation[list[Task]]:
    """Return the tasks that ``TAKE_FIRST`` has leased."""
    work.queued |= len(routes) > 1 and len(found) == claim.limit  # others have passed by what it locked and left
    if found:
        work.now = rows.to_instant(found[0][0])
    return (yield from _taken(work, claim, [row[1:] for row in found]))


def _take(work: Work, claim: Claim, chosen: Sequence[Place]) -> Operation[list[Task]]:
    """Lease the tasks at these places, in this order."""
    seqs, attempts = [place.seq for place in chosen], [place.attempt for place in chosen]
    found = yield from fetch(TAKE, seqs, attempts, claim.worker, work.after(claim.lease), work.instant)
    by_seq = {row[SEQ]: row for row in found}
    return (yield from _taken(work, claim, [by_seq[seq] for seq in seqs if seq in by_seq]))


def _taken(work: Work, claim: Claim, found: Sequence[Row]) -> Operation[list[Task]]:
    """Return the tasks of rows that were taken, given as they were before. Those that cannot be read are put back."""
    lease_until, now = work.after(claim.lease), work.instant
    tasks = [(row, parsing.to_task(rows.as_taken(row, claim.worker, lease_until, now))) for row in found]
    yield from _give_back(work, [(row, task.unreadable) for row, task in tasks if task.unreadable])
    return [task for _, task in tasks if not task.unreadable]


def _give_back(work: Work, unreadable: Sequence[tuple[Row, str]]) -> Operation[None]:
    """Set aside tasks that cannot be read, as they were before the claim."""
    if unreadable:
        columns = [(column, [*rows.TYPES].index(column)) for column in ("seq", *_TAKEN)]
        before = as_json({column: row[place] for column, place in columns} for row, _ in unreadable)
        yield from change(GIVE_BACK, before)
        yield from set_aside.put(work, unreadable)
