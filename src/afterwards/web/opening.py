"""Open the store when an application starts, also while it is away for a moment."""

import asyncio
from contextlib import suppress
from random import random

from afterwards import engines, telemetry
from afterwards.client.client import Client
from afterwards.core.errors import EngineUnavailable
from afterwards.execution.retrying import BACK_OFF
from afterwards.web.signals import Signals

PATIENCE = 10.0
"""Seconds for which a start waits for its store: a server restarts in less. uvicorn ends all of its processes when one
cannot start, and a process that restarts after a crash often does so because its server restarts, too.
"""


async def open_patiently(client: Client) -> None:
    """Open the store; retry for a while if it is unavailable, until a signal. Raises what ``Client.open`` raises."""
    loop, told_to_end = asyncio.get_running_loop(), asyncio.Event()
    until = loop.time() + PATIENCE
    failed = 0
    with Signals(told_to_end.set):
        while True:
            try:
                await client.open()
                return
            except EngineUnavailable as error:
                failed += 1
                pause = min(BACK_OFF.delay(failed, random()).total_seconds(), until - loop.time())
                if pause <= 0 or told_to_end.is_set():
                    raise
                if failed == 1:
                    telemetry.waits_for_store(engines.shown(client.url), error, PATIENCE)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await told_to_end.wait()
