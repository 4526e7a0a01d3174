"""What any worker does for all: take back what dead workers left, delete what is past its retention."""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from afterwards import telemetry
from afterwards.core import lifecycle
from afterwards.core.errors import UnknownFunction
from afterwards.core.lifecycle import Settled
from afterwards.core.options import Options
from afterwards.core.routing import FORGOTTEN_AFTER
from afterwards.core.task import FailedTask, Task
from afterwards.engine import Engine
from afterwards.worker.attempt import Tell, with_notice
from afterwards.worker.runnable import Functions, Runnable
from afterwards.worker.supervisor import keep_doing

RECLAIM_EVERY = timedelta(seconds=1)
PRUNE_EVERY = timedelta(minutes=1)
AT_ONCE = 500
"""Rows that one write takes back or deletes, so that no lock is held for long."""


class Upkeep:
    """Runs in every worker; several at a time do no harm, for every write is fenced."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        *,
        tell: Tell,
        told: Callable[[Runnable, FailedTask], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._functions = functions
        self._reclaim_every = min(RECLAIM_EVERY, options.lease / 3)
        self._tell = tell
        self._told = told  # has a plain `on_failure` told, once the failure is stored
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_doing("take lost tasks back", self._reclaim_every, self.reclaim))
            group.create_task(keep_doing("prune", PRUNE_EVERY, self.prune))

    async def reclaim(self) -> None:
        """Settle the tasks of workers that died: the attempt counts, the crash only against a suspect.

        What a worker still held that shut down in good order is given back, for nothing has crashed.
        """
        while tasks := await self._engine.expired(AT_ONCE):
            left = {worker.id for worker in await self._engine.seen_workers(FORGOTTEN_AFTER) if worker.has_left}
            lost = [self._lose(task, left) for task in tasks]
            refused = set(await self._engine.finish([settled for settled, _ in lost]))
            for task, (settled, failed) in zip(tasks, lost, strict=True):
                if settled.lease not in refused:
                    telemetry.lost(task, settled)
                    if failed:
                        self._told(self._functions.get(task.name), failed)
            if len(tasks) < AT_ONCE:
                return

    async def prune(self) -> None:
        while await self._engine.prune(AT_ONCE) == AT_ONCE:
            pass

    def _lose(self, task: Task, left: Collection[str]) -> tuple[Settled, FailedTask | None]:
        decide = lifecycle.left_behind if task.worker in left else lifecycle.lose
        settled = decide(task, now=self._clock())
        try:
            function = self._functions.get(task.name)
        except UnknownFunction:
            return settled, None  # another deploy's: it has nobody here to tell
        return with_notice(function, task, settled, self._tell)
