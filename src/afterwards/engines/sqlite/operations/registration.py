"""The live workers, and the tasks that no worker would take. Every function runs in one transaction."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from afterwards import telemetry
from afterwards.core import routing
from afterwards.core.routing import FORGOTTEN_AFTER, Backlog, LiveWorker, PlainRun, Route, Unroutable
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import skip_scan
from afterwards.engines.sqlite.operations.skip_scan import NEXT_LIMITED_NAME, NEXT_LIMITED_QUEUE, NEXT_NAME, NEXT_QUEUE
from afterwards.engines.sqlite.shapes import is_text

ANNOUNCE = """
    INSERT OR REPLACE INTO afterwards_workers
        (id, host, pid, started_at, names, queues, slots, has_left, more, seen_at)
    VALUES {rows}
"""


SEEN_WORKERS = """
    SELECT id, host, pid, started_at, names, queues, slots, seen_at, has_left, more FROM afterwards_workers
    WHERE seen_at >= ? ORDER BY started_at, id
"""

ANY_FORGOTTEN = "SELECT 1 FROM afterwards_workers WHERE seen_at <= ? LIMIT 1"

FORGET = "DELETE FROM afterwards_workers WHERE seen_at <= ?"

DUE_ROUTES = "SELECT DISTINCT name, queue FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ?"

BACKLOG = """
    SELECT count(*), min(coalesce(queued_at, created_at)) FROM afterwards_tasks INDEXED BY afterwards_queued
    WHERE state = 'queued' AND limit_key = '' AND suspect IN (0, 1) AND queue = ? AND name = ?
        AND coalesce(queued_at, created_at) <= ?
"""

LIMITED_BACKLOG = """
    SELECT count(*), min(coalesce(queued_at, created_at)) FROM afterwards_tasks INDEXED BY afterwards_limited_first
    WHERE state = 'queued' AND limit_key != '' AND suspect IN (0, 1) AND queue = ? AND name = ?
        AND coalesce(queued_at, created_at) <= ?
"""

DUE_BACKLOG = """
    SELECT count(*), min(run_at) FROM afterwards_tasks INDEXED BY afterwards_scheduled
    WHERE state = 'scheduled' AND run_at <= ? AND queue = ? AND name = ?
"""


def announce(connection: Connection, workers: Sequence[LiveWorker]) -> None:
    many.insert(connection, ANNOUNCE, [(*_from_worker(one), connection.instant) for one in workers])


def workers(connection: Connection, since: timedelta) -> list[LiveWorker]:
    return _to_workers(_seen(connection, since))


def unroutable(connection: Connection, waited: timedelta) -> list[Unroutable]:
    """Return the tasks that no worker would take. Tasks are counted only in the routes of these."""
    waiting = [route for route in _routes(connection) if not connection.paused.stops(route)]
    reasons = routing.unserved(waiting, workers(connection, waited)) if waiting else {}
    backlog = (_backlog(connection, route, connection.after(-waited)) for route in reasons)
    return routing.unroutable([one for one in backlog if one is not None], reasons)


def is_any_forgotten(connection: Connection) -> bool:
    return connection.execute(ANY_FORGOTTEN, (_forgotten(connection),)).fetchone() is not None


def forget(connection: Connection) -> None:
    connection.execute(FORGET, (_forgotten(connection),))


def _routes(connection: Connection) -> list[Route]:
    due = connection.execute(DUE_ROUTES, (connection.instant,)).fetchall()
    return sorted({Route(*route) for route in due if all(map(is_text, route))} | {*_queued_routes(connection)})


def _seen(connection: Connection, since: timedelta) -> Iterable[rows.Row]:
    return connection.execute(SEEN_WORKERS, (connection.after(-since),)).fetchall()


def _forgotten(connection: Connection) -> int:
    return connection.after(-FORGOTTEN_AFTER)


def _queued_routes(connection: Connection) -> Iterator[Route]:
    """Yield the routes of queued tasks. One index look-up per route skips all tasks in it."""
    for next_queue, next_name in (
        (NEXT_QUEUE, NEXT_NAME),
        (NEXT_LIMITED_QUEUE, NEXT_LIMITED_NAME),
    ):
        for suspicion in (skip_scan.INNOCENT, skip_scan.SUSPECT):
            for queue in skip_scan.present(connection, next_queue, (suspicion,), None):
                for name in skip_scan.present(connection, next_name, (suspicion, queue), None):
                    yield Route(name, queue)


def _backlog(connection: Connection, route: Route, latest: int) -> Backlog | None:
    found = [
        connection.execute(BACKLOG, (route.queue, route.name, latest)).fetchone(),
        connection.execute(LIMITED_BACKLOG, (route.queue, route.name, latest)).fetchone(),
        connection.execute(DUE_BACKLOG, (latest, route.queue, route.name)).fetchone(),
    ]
    since = [rows.instant_or(instant, connection.now) for _, instant in found if instant is not None]
    count = sum(count for count, _ in found)
    return Backlog(route=route, count=count, since=min(since)) if since else None


def _from_worker(worker: LiveWorker) -> rows.Row:
    queues = None if worker.queues is None else json.dumps(sorted(worker.queues))
    names = json.dumps(sorted(worker.names))
    started_at, has_left = rows.from_instant(worker.started_at), int(worker.has_left)
    return worker.id, worker.host, worker.pid, started_at, names, queues, worker.slots, has_left, _more(worker)


def _more(worker: LiveWorker) -> str | None:
    """Return as JSON what a worker tells of itself that decides nothing, None if it tells nothing."""
    running = [(one.name, rows.from_instant(one.started_at), one.origin) for one in worker.running]
    lag = None if worker.lag is None else rows.from_span(worker.lag)
    more = {"lag": lag, "version": worker.version or None, "running": running or None}
    told = {name: value for name, value in more.items() if value is not None}
    return json.dumps(told) if told else None


def _to_workers(found: Iterable[Sequence[Any]]) -> list[LiveWorker]:
    """Yield the workers that can be read. Others have another version, or a damaged row."""
    workers = []
    for row in found:
        try:
            workers.append(_to_worker(row))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            telemetry.row_unreadable("worker", str(row[0]), error)
    return workers


def _to_worker(row: Sequence[Any]) -> LiveWorker:
    id, host, pid, started_at, names, queues, slots, seen_at, has_left, more = row
    if not all(map(is_text, (id, host, pid))) or not isinstance(slots, int):
        raise TypeError("one of its columns has the wrong type")
    return LiveWorker(
        id=id,
        host=host,
        pid=pid,
        started_at=rows.to_instant(started_at),
        names=frozenset(json.loads(names)),
        queues=None if queues is None else frozenset(json.loads(queues)),
        slots=slots,
        seen_at=rows.to_instant(seen_at),
        has_left=bool(has_left),
        **_told(more),
    )


def _told(more: Any) -> dict[str, Any]:
    """Return the fields in the text of ``_more``. It decides nothing, so if it cannot be read, there are none."""
    if more is None:
        return {}
    try:
        told = json.loads(more)
        lag, version, running = told.get("lag"), told.get("version"), told.get("running", ())
        return {
            "lag": None if lag is None else rows.to_span(lag),
            "version": str(version or ""),
            "running": tuple(PlainRun(str(name), rows.to_instant(at), origin) for name, at, origin in running),
        }
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
