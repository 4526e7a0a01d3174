"""The parts of a worker that run beside its attempts. Each is restarted when it fails or is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from afterwards import telemetry
from afterwards.execution.health import Health
from afterwards.execution.retrying import keep_running
from afterwards.worker.lifetime import Lifetime

RESTART_AFTER = 0.1
"""Seconds until a part that was cancelled from outside is restarted."""

CLAIMING, FINISHING, REGISTERING, SCHEDULING = "claim tasks", "store the ends of tasks", "register", "fire schedules"
"""Names of parts that other modules refer to."""


class Parts:
    """Runs the parts in a task group. A part's key says what it does."""

    def __init__(self, lifetime: Lifetime, health: Health) -> None:
        self._lifetime = lifetime
        self._health = health
        self._parts: dict[str, asyncio.Task[None]] = {}
        self._once: list[asyncio.Task[None]] = []

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Run parts in this group from now on."""
        self._group = group
        self._loop = asyncio.get_running_loop()

    def start(self, doing: str, run: Callable[[], Awaitable[None]]) -> None:
        """Start a part, and restart it whenever it fails or is cancelled from outside."""

        def ended(part: "asyncio.Task[None]") -> None:
            if part.cancelled() and self._parts.get(doing) is part and not self._lifetime.over:
                self._loop.call_later(RESTART_AFTER, again)  # never runs if the event loop ends, as all parts do

        def again() -> None:
            if doing in self._parts and not self._lifetime.over:
                if not self._lifetime.draining.is_set():  # else its event loop ends, and cancels everything
                    telemetry.ended_early(doing)
                self.start(doing, run)

        part = self._parts[doing] = self._group.create_task(keep_running(doing, run, self._health), name=doing)
        part.add_done_callback(ended)

    def run_once(self, doing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a part that ends the worker."""
        part = self._group.create_task(doing)
        self._once.append(part)
        return part

    def stop(self, doing: str) -> None:
        """Stop a part for good."""
        if part := self._parts.pop(doing, None):
            part.cancel()

    async def ended(self, doing: str) -> None:
        """Wait until a part has ended, for whatever reason."""
        await asyncio.wait([self._parts[doing]])

    def has_ended(self, doing: str) -> bool:
        return self._parts[doing].done()

    def is_being_cancelled(self, doing: str) -> bool:
        """Return whether a part was cancelled. This worker cancels no part before its end."""
        return self._parts[doing].done() or self._parts[doing].cancelling() > 0

    def stop_all(self) -> None:
        for part in (*self._parts.values(), *self._once):
            part.cancel()
