"""How an installation attaches to an application: the boundary of a request, and the lifespan."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards import telemetry
from afterwards.client.client import Client, current, running_loop
from afterwards.client.installations import installations
from afterwards.client.request import Publication, publication
from afterwards.core.errors import (
    AlreadyInstalled,
    AlreadyStarted,
    EngineError,
    QueueFull,
    RefusedArgument,
    RefusedValue,
    TooLarge,
)
from afterwards.core.input import is_from_input
from afterwards.core.text import is_unicode, shortened
from afterwards.tasks.decorator import prepare
from afterwards.tasks.process_main import refuse_to_serve
from afterwards.tasks.registry import registry
from afterwards.web.background_tasks import RETRY_AFTER, RETRY_LATER, UNAVAILABLE, anything_to_store, store_made_by_hand
from afterwards.web.embedded_worker import Serving
from afterwards.web.signals import Signals
from afterwards.web.without_lifespan import WithoutLifespan


def attach(app: FastAPI, client: Client, serving: Callable[[], Serving]) -> None:
    """Put the boundary round the whole application, and the worker into its lifespan.

    Raises AlreadyStarted, AlreadyInstalled.
    """
    if app.middleware_stack is not None:
        raise AlreadyStarted("Afterwards was installed after the application had started: install it when it is made")
    if app in installations.applications:
        raise AlreadyInstalled("this application has its Afterwards already: remove one of the two")
    installations.applications.add(app)
    for error, answer in REFUSALS.items():
        app.add_exception_handler(error, answer)
    alone = WithoutLifespan(client, serving)
    lifespan = app.router.lifespan_context = Lifespan(app.router.lifespan_context, client, serving, alone)
    build = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        """Begin to serve: whatever was added after us is inside the boundary, and inside the lifespan, too."""
        if app.router.lifespan_context is not lifespan:  # a router with a lifespan of its own was included
            lifespan.step_aside()
            app.router.lifespan_context = Lifespan(app.router.lifespan_context, client, serving, alone)
        _refuse_in_mounted(app)
        stack = Boundary(build(), client, serving, alone)
        if app.build_middleware_stack is build_middleware_stack:
            return stack
        # Somebody builds around ours, as OpenTelemetry does, who looks for what Starlette has outermost.
        return ServerErrorMiddleware(stack)

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]  # the only place outside all


def _refuse_in_mounted(app: Starlette) -> None:
    """Applications inside this one answer their exceptions themselves: they refuse as this one does."""
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(route, Mount) and isinstance(mounted, Starlette):
            for error, answer in REFUSALS.items():
                mounted.exception_handlers.setdefault(error, answer)
            _refuse_in_mounted(mounted)


class Lifespan:
    """The application's own lifespan, with the worker in its middle."""

    def __init__(
        self,
        serve: Callable[[Any], AbstractAsyncContextManager[Any]],
        client: Client,
        serving: Callable[[], Serving],
        alone: WithoutLifespan,
    ) -> None:
        self._alone = alone
        self._serve = serve
        self._client = client
        self._serving = serving
        self._aside = False

    def step_aside(self) -> None:
        """Leave the worker to another one, which is outside this one."""
        self._aside = True

    def __call__(self, app: Any) -> AbstractAsyncContextManager[Any]:
        return self._serve(app) if self._aside else self._work(app)

    @asynccontextmanager
    async def _work(self, app: Any) -> AsyncIterator[Any]:
        refuse_to_serve()
        running_loop()
        self._alone.leave_to_lifespan()
        self._client.served = True
        runner = self._serving()
        telemetry.make_visible()
        for function in registry:
            prepare(function)  # what is wrong with a task function shows now at last
        try:
            await self._client.open()
            async with self._serve(app) as state:
                with Signals(runner.drain):  # until the worker has ended
                    async with runner.working(state or {}):
                        yield state
        finally:
            await self._client.close()


class Boundary:
    """The outermost middleware, outside the user's: when it is left, the response was sent and everything is closed."""

    def __init__(self, app: ASGIApp, client: Client, serving: Callable[[], Serving], alone: WithoutLifespan) -> None:
        self._app = app
        self._alone = alone
        self._client = client
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        origin = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        loop = running_loop()
        if loop is not self._alone.loop:
            self._alone.begin(loop)
        if not is_unicode(origin):
            origin = shortened(origin)
        request = Publication(self._client, origin=origin, loop=loop)
        client_before, request_before = current.set(self._client), publication.set(request)

        outgoing = Outgoing(request, scope, receive, send)
        try:
            await self._app(scope, receive, outgoing.send)
        finally:
            publication.reset(request_before)
            try:
                await request.end()
                if request.used:
                    await self._serving().request_ended()
            finally:
                current.reset(client_before)


class Outgoing:
    """What an application sends: what was added by hand is stored before the response begins, or there is another."""

    __slots__ = ("_receive", "_refused", "_request", "_scope", "_send")

    def __init__(self, request: Publication, scope: Scope, receive: Receive, send: Send) -> None:
        self._request = request
        self._scope = scope
        self._receive = receive
        self._send = send
        self._refused = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._request.failed = True
            elif anything_to_store(self._request):
                await self._store_made_by_hand()
            if self._request.joining:
                self._request.tell_of_late_commits()
        if not self._refused:
            self._request.answered = True
            await self._send(message)

    async def _store_made_by_hand(self) -> None:
        try:
            await store_made_by_hand(self._request)
        except EngineError:  # raised on, Starlette would take it for one in the middle of a response
            await self._refuse(_refusal())
        except QueueFull as error:
            await self._refuse(_too_many(error))
        except TooLarge as error:
            if not is_from_input(error, self._scope["headers"]):
                raise
            await self._refuse(_input_too_large(error))

    async def _refuse(self, answer: JSONResponse) -> None:
        self._refused = True
        await answer(self._scope, self._receive, self._send)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """Answer for a handler that could not enqueue."""
    telemetry.refused_request(f"{request.method} {request.url.path}", error)
    return _refusal()


async def _full(request: Request, error: Exception) -> JSONResponse:
    """Answer for a handler that could not enqueue because too many tasks wait."""
    return _too_many(error)


async def _unprocessable(request: Request, error: Exception) -> JSONResponse:
    """Answer for a value that the client may have sent, in the form of FastAPI's own."""
    parameter = getattr(error, "parameter", "")
    return JSONResponse({"detail": [{"type": "value_error", "loc": [parameter], "msg": shortened(str(error))}]}, 422)


async def _too_large(request: Request, error: Exception) -> JSONResponse:
    """Answer for a task that was larger than what is stored; what the code itself made so large is its error."""
    if isinstance(error, TooLarge) and is_from_input(error, request.scope["headers"]):
        return _input_too_large(error)
    raise error


def _input_too_large(error: TooLarge) -> JSONResponse:
    return JSONResponse({"detail": f"too large: {error.size:,} bytes, the limit is {error.limit:,}"}, status_code=413)


REFUSALS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
    EngineError: _unavailable,
    QueueFull: _full,
    TooLarge: _too_large,
    RefusedValue: _unprocessable,
    RefusedArgument: _unprocessable,
}
"""How a request is answered whose handler raises what a call could not be stored for."""


def _too_many(error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=429, headers=RETRY_LATER)


def _refusal() -> JSONResponse:
    return JSONResponse({"detail": UNAVAILABLE}, status_code=503, headers=RETRY_AFTER)
