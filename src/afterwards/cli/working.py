"""Run an application's tasks in this process, without a server."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType
from typing import Any

from fastapi import FastAPI

from afterwards.cli.errors import ExitCode, StoreUnreachable, UsageError
from afterwards.cli.health import Check, Health, Verdict
from afterwards.cli.processes import report
from afterwards.client.client import Client
from afterwards.client.installations import installations
from afterwards.core.errors import AfterwardsError, EngineError, InvalidOption
from afterwards.engine import Query
from afterwards.web.embedded_worker import Embedded, serving

PATIENCE = 2.0
"""Seconds that the store may take to answer before this process is not ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the command line says otherwise than the application; None leaves it as it is."""

    queues: frozenset[str] | None = None
    concurrency: int | None = None
    grace: float | None = None  # seconds
    burst: bool = False


async def work(app: FastAPI, orders: Orders, health: Health) -> ExitCode:
    """Run the application's lifespan and its tasks until a signal comes, or with ``burst`` until none is left."""
    client = _client(app)
    _apply(orders, client)
    reporting = asyncio.create_task(report(health))
    try:
        with _told_to_end() as told:
            app.middleware_stack = app.build_middleware_stack()  # as a server's first call does: the lifespan is whole
            async with app.router.lifespan_context(app):
                health.live, health.ready = _checks(client)
                await _until_done(app, client, told, burst=orders.burst)
    except EngineError as error:
        raise StoreUnreachable(f"the store cannot be opened: {error}") from error
    except AfterwardsError as error:
        raise UsageError(str(error)) from error
    finally:
        reporting.cancel()
    return ExitCode.FAILED if client.health.trouble else ExitCode.DONE


def _client(app: FastAPI) -> Client:
    """The installation of an application."""
    for client in installations:
        if client.application is not None and client.application() is app:
            return client
    raise UsageError("the application has no installation: write Afterwards(app) where it is made")


def _apply(orders: Orders, client: Client) -> None:
    options = client.options
    try:
        client.options = replace(
            options,
            worker=True,
            queues=options.queues if orders.queues is None else orders.queues,
            concurrency=options.concurrency if orders.concurrency is None else orders.concurrency,
            grace=options.grace if orders.grace is None else timedelta(seconds=orders.grace),
        )
    except InvalidOption as error:
        raise UsageError(str(error)) from error
    if client.url.startswith("memory:"):
        raise UsageError(
            "memory:// belongs to one process, and this one serves no requests: no task would ever come. Give the "
            "application another URL, or set AFTERWARDS_URL"
        )


async def _until_done(app: FastAPI, client: Client, told: asyncio.Event, *, burst: bool) -> None:
    waiting: set[asyncio.Task[Any]] = {asyncio.create_task(told.wait())}
    runner = serving(app, client)
    if burst and isinstance(runner, Embedded):
        waiting.add(asyncio.create_task(runner.until_idle()))
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


@contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    """An event that a signal sets. The embedded worker hears the signals first, and drains."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(told.set)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checks(client: Client) -> tuple[Check, Check]:
    """Liveness: the worker's parts turn. Readiness: the store answers as well."""

    async def live() -> Verdict:
        trouble = client.health.trouble
        return Verdict(trouble is None, trouble or "the worker runs")

    async def ready() -> Verdict:
        alive = await live()
        if not alive.well:
            return alive
        try:
            async with asyncio.timeout(PATIENCE):
                await (await client.open()).find(Query(limit=1))
        except TimeoutError:
            return Verdict(False, f"the store has not answered for {PATIENCE:g} s")
        except EngineError as error:
            return Verdict(False, f"the store does not answer: {error}")
        return Verdict(True, "the worker runs, and the store answers")

    return live, ready
