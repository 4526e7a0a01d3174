"""The workers: which live, and what each runs now."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from afterwards.core.record import TaskRecord
from afterwards.core.routing import LiveWorker
from afterwards.core.task import State
from afterwards.engine import Engine, Query
from afterwards.worker.live_processes import live_processes

SEEN_WITHIN = timedelta(minutes=15)
"""Workers that were not seen for longer are left out."""

MOST_RUNNING = 500
"""Running tasks that the page lists."""


class Standing(StrEnum):
    """The state of a worker, as far as its signs of life tell."""

    ALIVE = "alive"
    SILENT = "silent"  # it missed its last signs of life
    LEFT = "left"  # it shut down


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker, and its tasks."""

    worker: LiveWorker
    standing: Standing
    running: list[TaskRecord]

    @property
    def queues(self) -> list[str] | None:
        return None if self.worker.queues is None else sorted(self.worker.queues)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersPage:
    """The values for the template."""

    workers: list[WorkerRow]
    strays: list[TaskRecord]  # running tasks of workers that are not listed
    more_run: bool

    @property
    def alive(self) -> int:
        return sum(row.standing is Standing.ALIVE and not row.worker.dispatches for row in self.workers)

    @property
    def dispatching(self) -> int:
        """The number of live processes that only send tasks to a fleet."""
        return sum(row.standing is Standing.ALIVE and row.worker.dispatches for row in self.workers)


async def workers_page(engine: Engine) -> WorkersPage:
    """Read the page: three calls of the engine."""
    workers = await engine.workers(SEEN_WITHIN)
    alive = await alive_ids(engine)
    found = await engine.find(Query(states=frozenset({State.RUNNING}), limit=MOST_RUNNING + 1))
    running: defaultdict[str | None, list[TaskRecord]] = defaultdict(list)
    for task in found[:MOST_RUNNING]:
        running[task.worker].append(TaskRecord.of(task, shown=True))
    rows = [
        WorkerRow(worker=worker, standing=_standing(worker, alive), running=running.pop(worker.id, []))
        for worker in workers
    ]
    return WorkersPage(
        workers=sorted(rows, key=lambda row: (list(Standing).index(row.standing), row.worker.host, row.worker.pid)),
        strays=[task for tasks in running.values() for task in tasks],
        more_run=len(found) > MOST_RUNNING,
    )


async def alive_ids(engine: Engine) -> frozenset[str]:
    """Return the ids of the live workers and dispatchers."""
    return frozenset(worker.id for worker in await live_processes(engine))


def _standing(worker: LiveWorker, alive: frozenset[str]) -> Standing:
    if worker.has_left:
        return Standing.LEFT
    return Standing.ALIVE if worker.id in alive else Standing.SILENT
