"""Run the worker of an application whose server runs no lifespan: it starts with the first request."""

import asyncio
import atexit
import signal
import threading
from collections.abc import Callable

from afterwards import engines, telemetry
from afterwards.client.client import Client
from afterwards.execution.retrying import persist
from afterwards.tasks.decorator import prepare
from afterwards.tasks.process_main import refuse_to_serve
from afterwards.tasks.registry import registry
from afterwards.web import live
from afterwards.web.runners import Serving
from afterwards.web.signals import HeldSignals


class WithoutLifespan:
    """Runs tasks from the first request of an event loop to the end of the process, if no lifespan does.

    A server without a lifespan and an application mounted inside another one announce neither start nor end. The end is
    detected by its signal, which the server gets when the worker has ended; by the cancellation of everything on the
    event loop; or, if the event loop has a thread of its own, by the end of the interpreter.
    """

    def __init__(self, client: Client, serving: Callable[[], Serving]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None  # the last one that was checked
        self._client = client
        self._serving = serving
        self._working: asyncio.Task[None] | None = None

    def leave_to_lifespan(self) -> None:
        """Leave the running event loop to its lifespan, which begins now."""
        self.loop = asyncio.get_running_loop()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the worker on the event loop of a request, unless tasks are run already. Does not wait."""
        self.loop = loop
        self._client.served = True
        live.begin(self._client)
        serving = self._serving()
        if serving.started or (self._working and not self._working.done()):
            return
        self._client.health.begin()  # before this request, the first of its loop, checks the health
        # Attempts must not see the context of the first request.
        self._working = loop.create_task(self._work(serving), context=self._client.context.copy())

    async def _work(self, serving: Serving) -> None:
        try:
            refuse_to_serve()
            telemetry.make_visible()
            telemetry.without_lifespan(engines.shown(self._client.url))
            for function in registry:
                prepare(function)
            await persist("open the store", self._client.open)
        except Exception as error:  # only logged: requests are answered as well as possible
            telemetry.not_begun(error)
            return
        told = asyncio.Event()

        def end() -> None:
            live.end(self._client)
            told.set()

        signals = HeldSignals(serving.drain, end, serving.released)
        try:
            with signals, _Exit(end, serving.drain):
                async with serving.working({}):
                    await _until(told, or_cancelled=serving.drain)
        except asyncio.CancelledError:
            self.loop = None  # the next request may start it again
            raise
        finally:
            await self._client.close()
            if signals.held is not None:
                signal.raise_signal(signals.held)  # now the server may end


async def _until(told: asyncio.Event, *, or_cancelled: Callable[[], None]) -> None:
    """Wait for an event. An event loop that runs only one request, or a few, cancels everything when it ends."""
    try:
        await told.wait()
    except asyncio.CancelledError:
        or_cancelled()
        raise


class _Exit:
    """Makes the end of the interpreter wait for a worker whose event loop runs in a thread of its own."""

    def __init__(self, tell: Callable[[], None], hurry: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._hurry = hurry
        self._ended = threading.Event()

    def __enter__(self) -> None:
        atexit.register(self._at_exit)

    def __exit__(self, *_: object) -> None:
        atexit.unregister(self._at_exit)
        self._ended.set()

    def _at_exit(self) -> None:
        if not self._loop.is_running():
            return
        for tell in (self._tell, self._hurry, self._hurry):  # the interpreter ends: nothing can finish
            self._loop.call_soon_threadsafe(tell)
        self._ended.wait(LAST_WAIT)


LAST_WAIT = 8.0
"""Seconds that the end of the interpreter waits for a worker in another thread to give back what it holds."""
