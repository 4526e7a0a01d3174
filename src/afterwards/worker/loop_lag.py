"""Measure how late the event loop of a worker is."""

import asyncio

from afterwards.execution.lateness import Lateness

MEASURE_EVERY = 0.25
"""Seconds between two measurements. A shorter block is seen only by the watchdog, while an attempt runs."""


async def measure(lateness: Lateness) -> None:
    """Measure until cancelled."""
    now = asyncio.get_running_loop().time
    while True:
        due = now() + MEASURE_EVERY
        await asyncio.sleep(MEASURE_EVERY)
        lateness.note(max(0.0, now() - due))
