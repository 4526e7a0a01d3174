"""Find waiting tasks that no worker would take, from what recently seen workers say they take."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

UNROUTABLE_AFTER = timedelta(minutes=10)
"""How long a task must have had no worker that could take it. In a deploy, workers are away for less."""

ALIVE = timedelta(seconds=30)
"""A worker that was not seen for so long does not live: it announces itself every ten seconds."""

FORGOTTEN_AFTER = timedelta(days=1)
"""How long a worker stays registered after it was last seen."""


@dataclass(frozen=True, slots=True)
class PlainRun:
    """A plain function that runs after a response. No engine keeps it as a task."""

    name: str
    started_at: datetime
    origin: str | None = None  # the request that added it


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorker:
    """A live worker, as it announces itself."""

    id: str  # a new one for every start
    host: str
    pid: str
    started_at: datetime
    names: frozenset[str]  # the task functions that it knows
    queues: frozenset[str] | None = None  # those that it serves; None: all
    slots: int = 1  # tasks that it runs at once; 0: it runs none, and dispatches those of its queues to a fleet
    seen_at: datetime | None = None  # by the engine's clock; None in an announcement
    lag: timedelta | None = None  # how late its event loop was at most since its last sign of life
    version: str = ""  # of this package
    running: tuple[PlainRun, ...] = ()  # the plain functions that run in its process
    has_left: bool = False  # it shut down in good order: it still holds only tasks that it could not stop

    @property
    def dispatches(self) -> bool:
        """Return whether it runs no tasks, and sends them to a fleet."""
        return self.slots == 0


class Route(NamedTuple):
    """Tasks with one name in one queue."""

    name: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Tasks of one route that have been claimable for some time, and since when the first of them has."""

    route: Route
    count: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Unroutable:
    """Waiting tasks that no worker would take. They stay stored."""

    name: str
    queue: str
    count: int
    since: datetime  # the first of them has been claimable since then
    reason: str


def unserved(routes: Collection[Route], workers: Sequence[LiveWorker]) -> dict[Route, str]:
    """Return the routes of which no worker would take a task, each with the reason."""
    reasons = {route: _reason(route, workers) for route in routes}
    return {route: reason for route, reason in reasons.items() if reason is not None}


def unroutable(backlog: Sequence[Backlog], reasons: dict[Route, str]) -> list[Unroutable]:
    """Return the waiting tasks in routes that no worker serves, the longest waiting first."""
    return [
        Unroutable(
            name=one.route.name,
            queue=one.route.queue,
            count=one.count,
            since=one.since,
            reason=reasons[one.route],
        )
        for one in sorted(backlog, key=lambda one: (one.since, one.route))
    ]


def _reason(route: Route, workers: Sequence[LiveWorker]) -> str | None:
    workers = [worker for worker in workers if not worker.dispatches]
    if not workers:
        return "no worker lives"
    knowing = [worker for worker in workers if route.name in worker.names]
    if not knowing:
        return "no live worker knows it"
    if all(worker.queues is not None and route.queue not in worker.queues for worker in knowing):
        return f"no live worker that knows it serves queue {route.queue}"
    return None
