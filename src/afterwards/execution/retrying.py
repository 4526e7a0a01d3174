"""Keep doing what a worker must do, through an engine's bad moments."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import random
from typing import TypeVar

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable
from afterwards.core.retry import Retry
from afterwards.execution.health import Health

T = TypeVar("T")

BACK_OFF = Retry(wait=0.2, factor=2, max_wait=5)


async def persist(doing: str, operation: Callable[[], Awaitable[T]]) -> T:
    """Try an engine operation until the engine is there; for operations that may be sent twice."""
    failed = 0
    while True:
        try:
            return await operation()
        except EngineUnavailable as error:
            failed += 1
            wait = BACK_OFF.delay(failed, random())
            telemetry.engine_trouble(doing, error, wait)
            await asyncio.sleep(wait.total_seconds())


async def keep_doing(
    doing: str, every: timedelta, operation: Callable[[], Awaitable[None]], health: Health | None = None
) -> None:
    """Do something at once and then again and again, never giving up: not even because of a mistake of ours.

    With ``health`` tasks do not run without it.
    """
    while True:
        try:
            await persist(doing, operation)
        except Exception as error:  # a worker that stopped doing it would be worse than any bug
            _report(doing, error, health)
        else:
            if health is not None:
                health.well(doing)
        await asyncio.sleep(every.total_seconds() * (0.9 + 0.2 * random()))  # so that processes do not march in step


async def keep_running(doing: str, run: Callable[[], Awaitable[None]], health: Health) -> None:
    """Run a part of the worker, and again whenever it fails, until it returns by itself."""
    failed = 0
    while True:
        try:
            await run()
            return
        except Exception as error:  # as above
            failed += 1
            health.failed(doing, error)
        await asyncio.sleep(BACK_OFF.delay(failed, 1).total_seconds())


def _report(doing: str, error: Exception, health: Health | None) -> None:
    if health is None:
        telemetry.loop_broken(doing, error)
    else:
        health.failed(doing, error)
