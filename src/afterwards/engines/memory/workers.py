"""The live workers, in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from afterwards.core.clock_correction import corrected
from afterwards.core.routing import FORGOTTEN_AFTER, LiveWorker
from afterwards.engines.memory.kept import Kept


class KeptWorkers(Kept):
    """The workers that announced themselves, and when."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self._workers: dict[str, LiveWorker] = {}

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        with self._lock:
            for worker in workers:
                self._workers[worker.id] = replace(worker, seen_at=self._clock())

    async def workers(self, since: timedelta) -> list[LiveWorker]:
        with self._lock:
            earliest = self._clock() - since
            seen = [worker for worker in self._workers.values() if worker.seen_at and worker.seen_at >= earliest]
            return sorted(seen, key=lambda worker: (worker.started_at, worker.id))

    def _put_workers_right(self, now: datetime) -> None:
        self._workers = {
            id: replace(worker, seen_at=worker.seen_at and corrected(worker.seen_at, now))
            for id, worker in self._workers.items()
        }

    def _prune_workers(self, now: datetime) -> None:
        for id, worker in list(self._workers.items()):
            if worker.seen_at and worker.seen_at <= now - FORGOTTEN_AFTER:
                del self._workers[id]
