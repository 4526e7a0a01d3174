"""The part of the engine that people use, to query, stop and start tasks by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from afterwards.core import lifecycle, storing, succession
from afterwards.core.claim import Paused
from afterwards.core.queries import Query, Stats
from afterwards.core.tallies import Tally
from afterwards.core.task import Task
from afterwards.engines.memory.dispatches import KeptDispatches
from afterwards.engines.memory.files import KeptFiles
from afterwards.engines.memory.kept_tasks import KeptTasks
from afterwards.engines.memory.schedules import KeptSchedules
from afterwards.engines.memory.workers import KeptWorkers


class Controls(KeptTasks, KeptSchedules, KeptFiles, KeptWorkers):
    """The methods of ``Controls``."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self._dispatches = KeptDispatches()

    async def find(self, query: Query) -> list[Task]:
        with self._lock:
            return self._tasks.find(query)

    async def count(self, query: Query) -> int:
        with self._lock:
            return self._tasks.count(query)

    async def tallies(self, since: timedelta, step: timedelta) -> list[Tally]:
        with self._lock:
            return self._tallies.of(self._clock() - since, step)

    async def stats(self) -> Stats:
        with self._lock:
            counts = {place: count for place, count in self._tasks.counts.items() if count}
            now = self._clock()
            oldest = min((since for _, since in self._tasks.claimable(now)), default=None)
        return Stats(counts=counts, oldest=max(timedelta(), now - oldest) if oldest else None)

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        with self._lock:
            now, named = self._clock(), self._tasks.in_order(map(self._resolved, ids))
            cancelled = self._tasks.behind((task.id for task in named), lifecycle.cancelled_for_another)
            keys = {key for task in (*named, *cancelled) for key in storing.keys_of(task)}
            taken = {key.text for key in keys if key.kind is storing.KeyKind.UNIQUE and self._tasks.with_key(key)}
            requeued = succession.requeue_all(named, cancelled, taken, now)
            self._put(requeued.changed, now)
            return self._get(requeued.queued)

    async def start_now(self, ids: Sequence[str]) -> list[Task]:
        with self._lock:
            now, named = self._clock(), self._tasks.in_order(map(self._resolved, ids))
            started = [after for task in named if (after := lifecycle.start_now(task, now)) is not task]
            self._put(started, now)
            return started

    async def delete(self, ids: Sequence[str]) -> list[str]:
        with self._lock:
            finished = [task.id for task in self._tasks.in_order(map(self._resolved, ids)) if task.state.finished]
            self._forget(finished)
            self._delete_files(frozenset(finished), self._tasks.by_id)
            return finished

    async def prune(self, limit: int) -> int:
        with self._lock:
            now = self._clock()
            pruned = self._tasks.over(now, limit)
            self._forget(pruned)
            self._starts.prune(now)
            self._tallies.prune(now)
            self._dispatches.prune(now)
            self._prune_files(frozenset(pruned), self._tasks.by_id, now)
            self._prune_workers(now)
            return len(pruned)

    async def pause(self, paused: Paused) -> None:
        with self._lock:
            self._paused |= replace(paused, schedules=frozenset())
            self._pause_schedules(paused.schedules)

    async def resume(self, paused: Paused) -> None:
        with self._lock:
            self._paused -= paused
            self._resume_schedules(paused.schedules)
            self._wakeup.set()

    async def paused(self) -> Paused:
        with self._lock:
            return replace(self._paused, schedules=self._paused_schedules)

    def _forget(self, ids: Sequence[str]) -> None:
        """Delete tasks, and the ids of calls for which they stood."""
        for id in ids:
            self._tasks.delete(id)
        if ids:
            self._aliases = {id: task for id, task in self._aliases.items() if task in self._tasks.by_id}
