"""Give back leased tasks that do not start here: they may begin elsewhere."""

import asyncio
from functools import partial

from afterwards.worker.attempts import Attempts
from afterwards.worker.leased_task import LeasedTask, Phase
from afterwards.worker.leases import Leases
from afterwards.worker.parts import Parts

LONG_FOR_A_REQUEST, LONG_FOR_A_SLOT = 1.0, 0.25
"""Seconds between two checks for leased tasks that have not started. A task seen twice is given back."""


class Unstarted:
    """Checks leased tasks that wait for the end of their request, or for a slot."""

    def __init__(self, attempts: Attempts, leases: Leases) -> None:
        self._attempts = attempts
        self._leases = leases

    def start(self, parts: Parts) -> None:
        parts.start("give back tasks that wait for their request", partial(self._run, Phase.HELD, LONG_FOR_A_REQUEST))
        parts.start("give back tasks that wait for a slot", partial(self._run, Phase.READY, LONG_FOR_A_SLOT))

    async def _run(self, phase: Phase, pause: float) -> None:
        seen: set[LeasedTask] = set()
        while True:
            await asyncio.sleep(pause)
            waiting = {one for one in self._leases if one.phase is phase}
            for leased in waiting & seen:
                self._attempts.end(leased, leased.given_back)
            seen = waiting
