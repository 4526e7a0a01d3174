"""Run the worker inside the application's own lifespan."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from afterwards import telemetry
from afterwards.client.client import Client, running_loop
from afterwards.tasks.decorator import prepare
from afterwards.tasks.process_main import refuse_to_serve
from afterwards.tasks.registry import registry
from afterwards.web import live
from afterwards.web.opening import open_patiently
from afterwards.web.runners import Serving
from afterwards.web.signals import Signals
from afterwards.web.without_lifespan import WithoutLifespan


class Lifespan:
    """The application's own lifespan, with the worker running inside it."""

    def __init__(
        self,
        serve: Callable[[Any], AbstractAsyncContextManager[Any]],
        client: Client,
        serving: Callable[[], Serving],
        alone: WithoutLifespan,
        restore_boundary: Callable[[], object],
    ) -> None:
        self._restore_boundary = restore_boundary
        self._alone = alone
        self._serve = serve
        self._client = client
        self._serving = serving
        self._aside = False

    def step_aside(self) -> None:
        """Leave the worker to an outer lifespan."""
        self._aside = True

    def __call__(self, app: Any) -> AbstractAsyncContextManager[Any]:
        return self._serve(app) if self._aside else self._work(app)

    @asynccontextmanager
    async def _work(self, app: Any) -> AsyncIterator[Any]:
        refuse_to_serve()
        running_loop()
        self._restore_boundary()
        self._alone.leave_to_lifespan()
        self._client.served = True
        live.begin(self._client)
        runner = self._serving()
        telemetry.make_visible()
        for function in registry:
            prepare(function)  # errors in task functions are raised here at the latest
        try:
            await open_patiently(self._client)
            async with self._serve(app) as state:
                with Signals(partial(self._drain, runner), runner.released) as signals:  # until the worker has ended
                    async with runner.working(state or {}):
                        try:
                            yield state
                        finally:  # without a signal, this is the first that is heard of the end
                            signals.leave_to_server()
                            live.end(self._client)
        finally:
            await self._client.close()

    def _drain(self, runner: Serving) -> None:
        live.end(self._client)  # the server waits for all connections, and these would stay open
        runner.drain()
