"""Release leases of calls for whose answer nobody waits, or whose answer was lost."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from afterwards.core import lifecycle
from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.core.lifecycle import Released, Settled, Snoozed
from afterwards.core.retry import Retry
from afterwards.core.task import Lease, State, Task
from afterwards.engines.postgres.io.loop import LoopThread

MOST_REMEMBERED = 1000
"""Leases that are remembered because a repeated call might find them."""

PAUSE, TRIES = 1.0, 60
"""Seconds between two attempts while the server is away, and their number: by then the leases have run out."""


class UnclaimedLeases:
    """Release leases, and remember which."""

    def __init__(self, thread: LoopThread, finish: Callable[[Sequence[Settled]], Awaitable[object]]) -> None:
        self._thread = thread
        self._finish = finish
        self._leases: deque[Lease] = deque(maxlen=MOST_REMEMBERED)

    def release(self, tasks: Sequence[Task], held: Collection[str]) -> None:
        """Release the leases of tasks. Tasks in ``held`` stay held. Leases that were never stored are refused."""
        unheard = Released("nobody waited for the claim any more", begun=False)
        settled = [
            lifecycle.settle(
                task,
                Snoozed(lifecycle.HOLD, called=False) if task.id in held else unheard,
                Retry(),
                worker=task.worker or "",
                now=task.started_at or task.created_at,
                random=0.0,
            )
            for task in tasks
        ]
        if settled:
            self._leases += [one.lease for one in settled]
            self._thread.post(lambda: self._thread.spawn(self._release(settled)))

    def without_released(self, stored: list[Task]) -> list[Task]:
        """Return the answer to a call. If it repeats a call with released leases, the tasks are as they will be."""
        return [self._without_lease(task) for task in stored] if self._leases else stored

    def _without_lease(self, task: Task) -> Task:
        if task.state is not State.RUNNING or task.lease not in self._leases:
            return task
        began = task.started_at or task.created_at
        return replace(task, state=State.SCHEDULED, lease_until=None, run_at=began + lifecycle.HOLD)

    async def _release(self, settled: Sequence[Settled]) -> None:
        for _ in range(TRIES):
            try:
                await self._finish(settled)
                return
            except EngineUnavailable:
                await asyncio.sleep(PAUSE)
            except EngineError:
                return
