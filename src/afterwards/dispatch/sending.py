"""Send to a fleet what it may start."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from random import random

from afterwards import telemetry
from afterwards.core.errors import EngineError
from afterwards.dispatch.fleet import Fleet, NotSent, name_of
from afterwards.engine import Claim, Dispatch, Dispatched, Engine
from afterwards.execution.health import Health
from afterwards.execution.retrying import BACK_OFF, persist
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.racing import first

DISPATCHING = "dispatch tasks"
"""Name of the part of a dispatcher that sends."""

LONGEST_WAIT = timedelta(seconds=1)
"""Time after which an idle dispatcher polls: the end of a dispatch's way is announced by no engine."""

FULL_LOOK_EVERY = 0.1
"""Seconds between two looks while as many tasks are on their way as may be: no engine announces a claim."""


class Sending:
    """The loop of a dispatcher: asks the engine, and gives the answer to the fleet, until the dispatcher drains."""

    def __init__(
        self, engine: Engine, fleet: Fleet, *, ahead: Callable[[], Claim], lifetime: Lifetime, health: Health
    ) -> None:
        self._engine = engine
        self._fleet = fleet
        self._ahead = ahead
        self._draining = lifetime.draining
        self._health = health
        self._unsent: Sequence[Dispatch] = ()  # the engine takes them for being on their way
        self._refused = 0  # times in a row that the fleet did not accept them
        self._looked = asyncio.Event()  # the engine was asked
        self._again = asyncio.Event()  # it is to be asked now
        self._nothing_left = False  # by its last answer

    async def run(self) -> None:
        """Dispatch until the dispatcher drains. What could not be sent may then be dispatched by others at once."""
        while not self._draining.is_set():
            if self._unsent:
                await self._send()
            else:
                await self._send_next()
            self._health.well(DISPATCHING)
        self._health.rests()
        await self._give_back()

    async def found_nothing(self) -> bool:
        """Return whether nothing is left to send, by a look that starts after this call."""
        for _ in range(2):  # the first may have started before this call
            self._looked.clear()
            self._again.set()
            await first(self._looked.wait(), self._draining.wait())
        return self._nothing_left

    async def bring_back(self, ids: Collection[str]) -> None:
        """Queue tasks that were set aside."""
        await self._engine.claim(replace(self._ahead(), limit=0, ids=frozenset(ids)))

    async def _send_next(self) -> None:
        self._again.clear()
        dispatched = await persist(DISPATCHING, self._dispatched)
        self._unsent = dispatched.tasks
        if self._unsent:
            await self._send()
        self._nothing_left = not (dispatched.tasks or dispatched.more)
        self._looked.set()
        if self._unsent:
            return
        if dispatched.more:
            await first(self._draining.wait(), self._again.wait(), timeout=FULL_LOOK_EVERY)
        else:
            await first(self._engine.wait(LONGEST_WAIT), self._draining.wait(), self._again.wait())

    async def _dispatched(self) -> Dispatched:
        self._health.claims()  # also when the store is away: a restart would not bring it back
        return await self._engine.dispatch(self._ahead(), again=self._fleet.again_after)

    async def _send(self) -> None:
        """Send what is unsent. If the fleet does not accept it, wait; nothing else is asked for meanwhile."""
        self._health.claims()
        try:
            await self._fleet.send(self._unsent)
        except NotSent as error:
            self._unsent = error.unsent
            await self._back_off(error)
        else:
            if self._refused:
                telemetry.fleet_accepts(name_of(self._fleet))
            self._unsent, self._refused = (), 0

    async def _back_off(self, error: NotSent) -> None:
        if not self._refused:
            telemetry.fleet_silent(name_of(self._fleet), error.reason, len(error.unsent))
        self._refused += 1
        await first(self._draining.wait(), timeout=BACK_OFF.delay(self._refused, random()).total_seconds())

    async def _give_back(self) -> None:
        if self._unsent:
            starts = frozenset(one.lease for one in self._unsent)
            with suppress(EngineError):  # they are dispatched again a little later
                await self._engine.claim(replace(self._ahead(), limit=0, starts=starts))
