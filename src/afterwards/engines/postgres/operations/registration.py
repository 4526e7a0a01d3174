"""The live workers, and the tasks that no worker would take."""

import json
from collections.abc import Sequence
from datetime import timedelta

from afterwards import telemetry
from afterwards.core import routing
from afterwards.core.routing import FORGOTTEN_AFTER, Backlog, LiveWorker, PlainRun, Route, Unroutable
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import looking
from afterwards.engines.postgres.operations.looking import WHERE
from afterwards.engines.postgres.rows import Row, as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

_TYPES = {
    "id": "text",
    "host": "text",
    "pid": "text",
    "started_at": "bigint",
    "names": "text",
    "queues": "text",
    "slots": "integer",
    "has_left": "boolean",
    "lag": "bigint",
    "version": "text",
    "running": "text",
}

ANNOUNCE = f"""
    INSERT INTO afterwards_workers ({", ".join(_TYPES)}, seen_at)
    SELECT {", ".join(_TYPES)}, %s::bigint FROM {recordset("new", [], **_TYPES)} ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in [*_TYPES, "seen_at"])}
"""

SEEN_WORKERS = f"""
    SELECT {", ".join([*_TYPES, "seen_at"])} FROM afterwards_workers WHERE seen_at >= %s ORDER BY started_at, id
"""

FORGET = "DELETE FROM afterwards_workers WHERE seen_at <= %s"

DUE_ROUTES = "SELECT DISTINCT name, queue FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= %s"


def _backlog(condition: str, since: str) -> str:
    return f"""
        SELECT t.name, t.queue, count(*), min({since}) FROM afterwards_tasks t
        JOIN {{routes}} ON t.queue = route.queue AND t.name = route.name
        WHERE {condition} AND {since} <= %s GROUP BY t.name, t.queue
    """


BACKLOGS = [
    _backlog(condition, since).format(routes=recordset("route", ["name", "queue"]))
    for condition, since in (
        *((condition, "coalesce(since, created_at)") for condition in WHERE.values()),
        ("state = 'scheduled'", "run_at"),
    )
]


def announce(work: Work, workers: Sequence[LiveWorker]) -> Operation[None]:
    last = {worker.id: worker for worker in workers}
    yield from change(ANNOUNCE, work.instant, as_json(map(_from_worker, last.values())))


def workers(work: Work, since: timedelta) -> Operation[list[LiveWorker]]:
    """Return the workers that can be read. Others have another version."""
    found = []
    for row in (yield from fetch(SEEN_WORKERS, work.after(-since))):
        try:
            found.append(_to_worker(row))
        except (ValueError, TypeError, OverflowError) as error:
            telemetry.row_unreadable("worker", str(row[0]), error)
    return found


def unroutable(work: Work, waited: timedelta) -> Operation[list[Unroutable]]:
    """Return the tasks that no worker would take. Tasks are counted only in the routes of these."""
    seen = yield from looking.look()
    due = yield from fetch(DUE_ROUTES, work.instant)
    routes = {Route(*route) for route in due} | {route for kind in WHERE for route in seen.lanes.get(kind, ())}
    waiting = sorted(route for route in routes if not seen.paused.stops(route))
    reasons = routing.unserved(waiting, (yield from workers(work, waited))) if waiting else {}
    if not reasons:
        return []
    named = as_json({"name": route.name, "queue": route.queue} for route in reasons)
    counts: dict[Route, int] = {}
    since: dict[Route, int] = {}
    for statement in BACKLOGS:
        for name, queue, count, first in (yield from fetch(statement, named, work.after(-waited))):
            route = Route(name, queue)
            counts[route] = counts.get(route, 0) + count
            since[route] = min(first, since.get(route, first))
    backlog = [Backlog(route=route, count=counts[route], since=rows.to_instant(since[route])) for route in counts]
    return routing.unroutable(backlog, reasons)


def forget(work: Work) -> Operation[None]:
    yield from change(FORGET, work.after(-FORGOTTEN_AFTER))


def _from_worker(worker: LiveWorker) -> dict[str, object]:
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "started_at": rows.from_instant(worker.started_at),
        "names": json.dumps(sorted(worker.names)),
        "queues": None if worker.queues is None else json.dumps(sorted(worker.queues)),
        "slots": worker.slots,
        "has_left": worker.has_left,
        "lag": None if worker.lag is None else rows.from_span(worker.lag),
        "version": worker.version,
        "running": json.dumps([[one.name, rows.from_instant(one.started_at), one.origin] for one in worker.running]),
    }


def _to_worker(row: Row) -> LiveWorker:
    id, host, pid, started_at, names, queues, slots, has_left, lag, version, running, seen_at = row
    return LiveWorker(
        id=id,
        host=host,
        pid=pid,
        started_at=rows.to_instant(started_at),
        names=frozenset(json.loads(names)),
        queues=None if queues is None else frozenset(json.loads(queues)),
        slots=slots,
        seen_at=rows.to_instant(seen_at),
        has_left=has_left,
        lag=None if lag is None else rows.to_span(lag),
        version=version or "",
        running=tuple(PlainRun(name, rows.to_instant(at), origin) for name, at, origin in json.loads(running or "[]")),
    )
