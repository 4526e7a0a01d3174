"""Claim tasks: take the places that a claim may have, in one transaction."""

from collections.abc import Sequence
from dataclasses import replace

from afterwards.core import limits
from afterwards.core.limits import UNLIMITED
from afterwards.core.routing import Route
from afterwards.core.task import Task
from afterwards.engine import Claim
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import candidates, finishing, looking, set_aside
from afterwards.engines.postgres.operations.candidates import NOT_OVERDUE, Place
from afterwards.engines.postgres.operations.limiting import Rooms
from afterwards.engines.postgres.operations.looking import LIMITED, QUEUED, SUSPECTS, WHERE, Look
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row, as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

PROMOTE = """
    UPDATE afterwards_tasks SET state = 'queued', since = run_at, run_at = NULL WHERE seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= %s
        ORDER BY run_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
    )
"""

_UPDATE = """
    UPDATE afterwards_tasks t SET
        state = 'running', attempt = t.attempt + 1, run_at = NULL, worker = %s, lease_until = %s, started_at = %s,
        progress = NULL, since = NULL
    FROM old WHERE t.seq = old.seq
"""

# The usual claim in one statement: of tasks without limits that are no suspects.
TAKE_FIRST = f"""
    WITH old AS MATERIALIZED (
        SELECT place.* FROM unnest(%s::text[], %s::text[]) AS lane (queue, name)
        CROSS JOIN LATERAL (
            SELECT {COLUMNS} FROM afterwards_tasks t
            WHERE {WHERE[QUEUED]} AND t.queue = lane.queue AND t.name = lane.name AND {NOT_OVERDUE}
            ORDER BY t.priority DESC, t.seq LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
        ) AS place
        ORDER BY place.priority DESC, place.seq LIMIT %s
    ), new AS ({_UPDATE})
    SELECT * FROM old ORDER BY priority DESC, seq
"""

# It returns the rows as they were: a row that cannot be read is put back. The translation of `lifecycle.claim`.
TAKE = f"""
    WITH old AS (
        SELECT {COLUMNS} FROM afterwards_tasks t JOIN unnest(%s::bigint[], %s::integer[]) AS chosen (seq, attempt)
            ON t.seq = chosen.seq AND t.attempt = chosen.attempt
        WHERE t.state = 'queued' FOR NO KEY UPDATE OF t SKIP LOCKED
    ), new AS ({_UPDATE})
    SELECT * FROM old
"""

_TAKEN = ("attempt", "run_at", "worker", "lease_until", "started_at", "progress")

GIVE_BACK = f"""
    UPDATE afterwards_tasks t SET state = 'queued', {", ".join(f"{column} = new.{column}" for column in _TAKEN)}
    FROM {recordset("new", ["seq", *_TAKEN])} WHERE t.seq = new.seq
"""

MOST_PROMOTED = 1000
"""Due tasks that one claim queues, so that no transaction takes long if very many become due together."""

MOST_SET_ASIDE = 1000
"""Tasks that one claim sets aside, with a new search each time, so that no transaction takes long."""


def is_needed(claim: Claim, seen: Look) -> bool:
    """Return False if a claim would neither take, promote, bring back nor cancel anything."""
    if seen.is_any_due or seen.is_any_overdue or claim.ids is not None:
        return True
    kinds = (QUEUED, LIMITED, SUSPECTS) if claim.suspects else (QUEUED, LIMITED)
    return claim.limit > 0 and any(seen.served(claim, kind) for kind in kinds)


def claim(work: Work, claim: Claim, seen: Look) -> Operation[list[Task]]:
    """Lease tasks in a transaction with ``OPENING_OF_A_CLAIM``. ``seen`` may be of a moment before."""
    seen = replace(seen, paused=looking.paused_at(work))
    if claim.ids is not None:
        yield from finishing.bring_back(work, claim.ids)
    if seen.is_any_overdue and (yield from finishing.expire(work)):
        work.queued = True  # very many: none of them may start, so the worker has to claim again
        return []
    if seen.is_any_due:
        promoted = yield from change(PROMOTE, work.instant, MOST_PROMOTED)
        work.queued |= promoted > 0  # other workers may serve tasks that this worker does not
    if seen.is_any_due or seen.is_any_overdue or claim.ids is not None:
        seen = yield from looking.look()
    taken: list[Task] = []
    while len(work.set_aside) < MOST_SET_ASIDE:
        before = len(work.set_aside)
        taken += yield from _claim(work, claim, seen)
        if len(work.set_aside) == before:  # the usual case
            return taken
        suspects = sum(task.suspect for task in taken)
        claim = replace(claim, limit=claim.limit - len(taken), suspects=max(0, claim.suspects - suspects))
    work.queued = True  # more tasks are behind those set aside: claim again
    return taken


def _claim(work: Work, claim: Claim, seen: Look) -> Operation[list[Task]]:
    if claim.limit < 1:
        return []
    if _is_plain(claim, seen):
        return (yield from _take_first(work, claim, seen.served(claim, QUEUED)))
    rooms = Rooms(work, claim)
    yield from rooms.lock(_names(claim, seen))
    found = yield from candidates.places(work, claim, seen, rooms)
    yield from rooms.load((place.name, place.limit_key) for place in found)
    ordered = sorted(found, key=lambda place: (-place.priority, place.seq))
    places = ((place, place.suspect, rooms.group(place.name, place.limit_key)) for place in ordered)
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
    return claim.ids is None and not (others or limited)


def _take_first(work: Work, claim: Claim, routes: Sequence[Route]) -> Operation[list[Task]]:
    """Lease the first tasks of these lanes."""
    queues, names = [route.queue for route in routes], [route.name for route in routes]
    lease = claim.worker, work.after(claim.lease), work.instant
    found = yield from fetch(TAKE_FIRST, queues, names, work.instant, claim.limit, claim.limit, *lease)
    work.queued |= len(routes) > 1 and len(found) == claim.limit  # others have passed by what it locked and left
    return (yield from _taken(work, claim, found))


def _names(claim: Claim, seen: Look) -> set[str]:
    """Return the names of queued tasks whose functions have limits."""
    if claim.ids is not None:
        return {*claim.limits}
    return {route.name for kind in WHERE for route in seen.served(claim, kind) if route.name in claim.limits}


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
