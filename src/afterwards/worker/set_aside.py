"""Re-examine tasks that are set aside: other code may have refused them, and this code may be able to run them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from afterwards import telemetry
from afterwards.core.errors import UnknownFunction
from afterwards.core.task import Task
from afterwards.engine import Engine, Query
from afterwards.execution.decoding import misfits
from afterwards.execution.function import Functions
from afterwards.execution.retrying import keep_doing

LOOK_EVERY = timedelta(seconds=5)

AT_ONCE = 100
"""Tasks that one check reads, so that it delays no request."""


class BringsBack(Protocol):
    """Claims tasks that were set aside, and queues those without a free slot."""

    async def bring_back(self, ids: Sequence[str]) -> None: ...


class SetAsideReview:
    """Brings back set-aside tasks that this code can run. Runs in every worker."""

    def __init__(self, engine: Engine, functions: Functions, claimer: BringsBack) -> None:
        self._engine = engine
        self._functions = functions
        self._claimer = claimer
        self._query = Query(set_aside=True, limit=AT_ONCE)

    async def run(self) -> None:
        """Check set-aside tasks until cancelled."""
        await keep_doing("review the tasks that are set aside", LOOK_EVERY, self.look)

    async def look(self) -> None:
        """Bring back tasks that this code can run, and log the others once. Each check reads a part of very many."""
        while tasks := await self._engine.find(self._query):
            fit = [task.id for task in tasks if self._fits(task)]
            if fit:
                await self._claimer.bring_back(fit)
            more = len(tasks) == AT_ONCE
            self._query = replace(self._query, before=tasks[-1].id if more else None)
            if not (fit and more):
                return
            await asyncio.sleep(0)
        self._query = replace(self._query, before=None)

    def _fits(self, task: Task) -> bool:
        if task.unreadable is not None:
            telemetry.set_aside(task.id, task.name, task.unreadable, extra=_fields(task))
            return False
        try:
            found = misfits(self._functions.get(task.name), task)
        except UnknownFunction:
            return False
        for misfit in found:
            telemetry.set_aside(task.id, task.name, str(misfit), extra=_fields(task))
        return not found


def _fields(task: Task) -> dict[str, object]:
    return {"attempt": task.attempt, "state": str(task.state)}
