"""Store outcomes of attempts in batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from afterwards.core.settling import Settled
from afterwards.engine import Engine
from afterwards.execution.health import Health
from afterwards.execution.retrying import persist

LINGER = 0.005
"""Seconds between two writes: attempts that end meanwhile share the next one. After a pause a write is immediate."""


DOING = "store the ends of tasks"


class Stored(Protocol):
    """Is told when outcomes are stored."""

    def refused(self, settled: Settled) -> None:
        """Handle an outcome whose lease was lost: it is not stored."""
        ...

    def stored(self, batch: Sequence[Settled]) -> None: ...


class Finisher:
    """Collects outcomes of attempts, and has the engine store them. ``linger`` is the least time between two writes."""

    def __init__(self, engine: Engine, listener: Stored, health: Health, *, linger: float = LINGER) -> None:
        self._engine = engine
        self._listener = listener
        self._health = health
        self._least = linger
        self._gathered: list[Settled] = []
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._hurry = False
        self._lingering: asyncio.Future[None] | None = None

    def add(self, settled: Settled, *, at_once: bool = False) -> None:
        """Have an outcome stored; with ``at_once`` without delay, because something waits for it."""
        if not self._gathered:
            self._some.set()
            self._none.clear()
        self._gathered.append(settled)
        if at_once:
            self._hurry = True
            if self._lingering is not None:
                _wake(self._lingering)

    async def run(self) -> None:
        """Store outcomes as they come, until cancelled."""
        now = asyncio.get_running_loop().time
        last = 0.0
        while True:
            await self._some.wait()
            await self._linger(last + self._least - now())
            await self.store()
            last = now()

    async def _linger(self, seconds: float) -> None:
        """Wait for more outcomes, unless one is urgent."""
        if self._hurry or seconds <= 0:
            await asyncio.sleep(0)  # attempts that end in this turn of the event loop are always stored together
            return
        loop = asyncio.get_running_loop()
        self._lingering = loop.create_future()
        timer = loop.call_later(seconds, _wake, self._lingering)
        try:
            await self._lingering
        finally:
            self._lingering = None
            timer.cancel()

    async def store(self) -> None:
        """Store the collected outcomes."""
        batch, self._gathered = self._gathered, []
        self._some.clear()
        self._hurry = False
        try:
            await self._finish(batch)
        except asyncio.CancelledError:
            self._gathered[:0] = batch
            raise
        self._listener.stored(batch)
        if not self._gathered:
            self._none.set()

    async def _finish(self, batch: Sequence[Settled]) -> None:
        try:
            refused = {*await persist(DOING, lambda: self._engine.finish(batch))}
            for one in batch if refused else ():
                if one.lease in refused:
                    self._listener.refused(one)
        except Exception as error:  # the others are stored
            self._health.failed(DOING, error)
            if len(batch) > 1:
                for one in batch:
                    await self._finish([one])
            elif (bare := _bare(batch[0])) != batch[0]:
                await self._finish([bare])  # a task that still cannot be stored runs again after its lease has expired
        else:
            self._health.well(DOING)

    async def all_stored(self) -> None:
        """Return when nothing is left to store."""
        await self._none.wait()


def _wake(lingering: "asyncio.Future[None]") -> None:
    if not lingering.done():
        lingering.set_result(None)


def _bare(settled: Settled) -> Settled:
    """Return an outcome without its descriptive texts."""
    failure = settled.failure
    if failure is not None:
        failure = replace(failure, type="Exception", message="its type and message could not be stored", traceback="")
    return replace(settled, failure=failure, progress=None, logs=(), then=None)
