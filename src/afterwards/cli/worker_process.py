"""One worker process: run an application's lifespan and its tasks, without an HTTP server."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

from fastapi import FastAPI

from afterwards.cli.application import described, installation, own_frames
from afterwards.cli.errors import CommandError, ExitCode, StoreRefused, UsageError, store_error
from afterwards.cli.health import Check, Health
from afterwards.cli.supervisor import is_supervised, report
from afterwards.client import probes
from afterwards.client.client import Client
from afterwards.core.errors import AfterwardsError, EngineError, InvalidOption, UnsupportedEngine
from afterwards.core.verdict import Verdict
from afterwards.dispatch.fleet import name_of
from afterwards.web.embedded import Embedded
from afterwards.web.runners import fleet_of, serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Options of the command line that override the application's. None keeps the application's."""

    queues: frozenset[str] | None = None
    concurrency: int | None = None
    grace: timedelta | None = None
    burst: bool = False


async def work(app: FastAPI, overrides: Overrides, health: Health) -> ExitCode:
    """Run the lifespan and the tasks until a signal, or with ``burst`` until no task can start. Raises CommandError."""
    client = installation(app)
    _apply(overrides, client)
    reporting = asyncio.create_task(report(health))
    try:
        with _stop_on_signals() as stop:
            # As the first call of a server does, so that the lifespan is complete.
            app.middleware_stack = app.build_middleware_stack()
            async with _lifespan(app):
                health.live, health.ready = _checks(client)
                await _until_done(app, client, stop, burst=overrides.burst)
    except UnsupportedEngine as error:
        raise UsageError(str(error)) from error
    except EngineError as error:
        failed = store_error(error, f"the store cannot be opened: {error}")
        if isinstance(failed, StoreRefused) and is_supervised():
            failed.code = ExitCode.REFUSED
        raise failed from error
    except AfterwardsError as error:
        raise UsageError(str(error)) from error
    finally:
        reporting.cancel()
    return ExitCode.FAILED if client.health.trouble else ExitCode.DONE


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the application's lifespan. Raises CommandError if the application's own code fails in it."""
    lifespan = app.router.lifespan_context(app)
    with _failing("starting"):
        await lifespan.__aenter__()
    try:
        yield
    except BaseException as error:
        with _failing("ending", beside=error):
            await lifespan.__aexit__(type(error), error, error.__traceback__)
        raise
    with _failing("ending"):
        await lifespan.__aexit__(None, None, None)


@contextmanager
def _failing(doing: str, *, beside: BaseException | None = None) -> Iterator[None]:
    """Raise CommandError for an exception of the application's own code. ``beside`` is one that is known already."""
    try:
        yield
    except AfterwardsError:
        raise
    except Exception as error:
        if error is beside or not own_frames(error):
            raise
        raise CommandError(f"{doing} the application failed: its lifespan raised {described(error)}") from error


def _apply(overrides: Overrides, client: Client) -> None:
    options = client.options
    if overrides.concurrency is not None and (fleet := fleet_of(client)) is not None:
        raise UsageError(
            f"-c: the tasks of this application run on a fleet (dispatch={name_of(fleet)}), and this process only "
            "dispatches them: set how many run at once in the fleet"
        )
    try:
        client.options = replace(
            options,
            worker=True,
            queues=options.queues if overrides.queues is None else overrides.queues,
            concurrency=options.concurrency if overrides.concurrency is None else overrides.concurrency,
            grace=options.grace if overrides.grace is None else overrides.grace,
        )
    except InvalidOption as error:
        raise UsageError(str(error)) from error
    if client.url.startswith("memory:"):
        raise UsageError(
            "tasks in memory:// are visible to one process only, so a worker would never find any. Give the "
            "application another URL, or set AFTERWARDS_URL"
        )


async def _until_done(app: FastAPI, client: Client, stop: asyncio.Event, *, burst: bool) -> None:
    waiting: set[asyncio.Task[Any]] = {asyncio.create_task(stop.wait())}
    runner = serving(app, client)
    if burst and isinstance(runner, Embedded):
        waiting.add(asyncio.create_task(runner.until_idle()))
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


@contextmanager
def _stop_on_signals() -> Iterator[asyncio.Event]:
    """Provide an event that SIGTERM and SIGINT set. The embedded worker handles the signal first, and drains."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checks(client: Client) -> tuple[Check, Check]:
    """Return the checks of liveness (the parts of the worker run) and readiness (the store answers, too)."""

    async def live() -> Verdict:
        return probes.live(client)

    return live, partial(probes.ready, client)
