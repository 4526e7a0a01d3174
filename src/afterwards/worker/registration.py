"""Register a worker with the engine, and look for tasks that no registered worker would take."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from afterwards import telemetry
from afterwards.core.routing import UNROUTABLE_AFTER, LiveWorker, Route, Unroutable
from afterwards.engine import Engine
from afterwards.environment import version
from afterwards.execution.lateness import Lateness
from afterwards.execution.plain_runs import PlainRuns
from afterwards.execution.retrying import keep_doing

REGISTER_EVERY = timedelta(seconds=10)
LOOK_EVERY = timedelta(minutes=1)


class Registration:
    """Keeps a worker, or a process that only dispatches, registered with the engine while it lives."""

    def __init__(
        self,
        engine: Engine,
        id: str,
        *,
        names: Callable[[], frozenset[str]],
        queues: frozenset[str] | None,
        slots: int,
        clock: Callable[[], datetime],
        lateness: Lateness,
        plain_runs: PlainRuns,
    ) -> None:
        self._engine = engine
        self._names = names
        self._lateness = lateness
        self._plain_runs = plain_runs
        self._myself = LiveWorker(
            id=id,
            host=socket.gethostname(),
            pid=str(os.getpid()),
            started_at=clock(),
            names=frozenset(),
            queues=queues,
            slots=slots,
            version=version(),
        )
        self._told: frozenset[Route] = frozenset()

    async def run(self) -> None:
        """Renew the registration until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_doing("register", REGISTER_EVERY, self.register))
            group.create_task(self._keep_looking())

    async def register(self) -> None:
        await self._engine.announce([self._now()])

    async def unregister(self) -> None:
        await self._engine.announce([replace(self._now(), has_left=True)])

    async def look(self) -> None:
        """Log tasks that no worker would claim: once, until they are gone."""
        found = {Route(one.name, one.queue): one for one in await find_unroutable(self._engine)}
        for route in found.keys() - self._told:
            telemetry.unroutable(found[route])
        self._told = frozenset(found)

    def _now(self) -> LiveWorker:
        return replace(
            self._myself,
            names=self._names(),
            lag=self._lateness.longest(),
            running=self._plain_runs.shown(),
        )

    async def _keep_looking(self) -> None:
        await asyncio.sleep(LOOK_EVERY.total_seconds())  # after a long pause the other workers may not have started yet
        await keep_doing("look for unroutable tasks", LOOK_EVERY, self.look)


async def find_unroutable(engine: Engine) -> list[Unroutable]:
    """Return tasks that have waited ten minutes and that no worker seen in that time would claim; no paused ones."""
    return await engine.unroutable(UNROUTABLE_AFTER)
