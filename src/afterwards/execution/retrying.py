"""Repeat a worker's operations, also while an engine is unavailable."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import random
from typing import TypeVar

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable
from afterwards.core.retry import Retry
from afterwards.execution.cancellation import is_the_end
from afterwards.execution.health import Health

T = TypeVar("T")

BACK_OFF = Retry(wait=0.2, factor=2, max_wait=5)


async def persist(doing: str, operation: Callable[[], Awaitable[T]]) -> T:
    """Retry an engine operation until the engine is available; for operations that may be sent twice."""
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
    """Do something now and then repeatedly. Never gives up, not even after a bug of ours.

    ``health`` is given if tasks do not run without it.
    """
    while True:
        try:
            await persist(doing, operation)
        except BaseException as error:  # a worker must never stop doing it because of a bug
            if is_the_end(error):
                raise
            _report(doing, error, health)
        else:
            if health is not None:
                health.well(doing)
        await asyncio.sleep(every.total_seconds() * (0.9 + 0.2 * random()))  # so that processes do not run in lockstep


async def keep_running(doing: str, run: Callable[[], Awaitable[None]], health: Health) -> None:
    """Run a part of the worker, and rerun it whenever it fails, until it returns."""
    failed = 0
    while True:
        try:
            await run()
            return
        except BaseException as error:  # as above
            if is_the_end(error):
                raise
            failed += 1
            health.failed(doing, error)
        await asyncio.sleep(BACK_OFF.delay(failed, 1).total_seconds())


def _report(doing: str, error: BaseException, health: Health | None) -> None:
    if health is None:
        telemetry.loop_broken(doing, error)
    else:
        health.failed(doing, error)
