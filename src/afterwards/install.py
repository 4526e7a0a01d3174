"""How an installation attaches to an application: the boundary of a request, the lifespan, the signals."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType, TracebackType
from typing import Any, Self
from weakref import WeakSet

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards import telemetry
from afterwards.background import RETRY_AFTER, RETRY_LATER, UNAVAILABLE, anything_to_store, store_made_by_hand
from afterwards.client import Client, current
from afterwards.core.errors import (
    AlreadyInstalled,
    AlreadyStarted,
    EngineError,
    QueueFull,
    RefusedArgument,
    RefusedValue,
)
from afterwards.core.text import is_unicode, shortened
from afterwards.declaring import prepare
from afterwards.isolated import refuse_to_serve
from afterwards.publication import Publication, publication
from afterwards.registry import registry
from afterwards.serving import Serving

_installed: WeakSet[FastAPI] = WeakSet()


def attach(app: FastAPI, client: Client, serving: Callable[[], Serving]) -> None:
    """Put the boundary round the whole application, and the worker into its lifespan.

    Raises AlreadyStarted, AlreadyInstalled.
    """
    if app.middleware_stack is not None:
        raise AlreadyStarted("Afterwards was installed after the application had started: install it when it is made")
    if app in _installed:
        raise AlreadyInstalled("this application has its Afterwards already: remove one of the two")
    _installed.add(app)
    app.add_exception_handler(EngineError, _unavailable)
    app.add_exception_handler(QueueFull, _full)
    app.add_exception_handler(RefusedValue, _unprocessable)
    app.add_exception_handler(RefusedArgument, _unprocessable)
    lifespan = app.router.lifespan_context = Lifespan(app.router.lifespan_context, client, serving)
    build = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        """Begin to serve: whatever was added after us is inside the boundary, and inside the lifespan, too."""
        if app.router.lifespan_context is not lifespan:  # a router with a lifespan of its own was included
            lifespan.step_aside()
            app.router.lifespan_context = Lifespan(app.router.lifespan_context, client, serving)
        _refuse_in_mounted(app)
        return Boundary(build(), client, serving)

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]  # the only place outside all


def _refuse_in_mounted(app: Starlette) -> None:
    """Applications inside this one answer their exceptions themselves: they, too, answer 503 when the engine fails."""
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(route, Mount) and isinstance(mounted, Starlette):
            mounted.exception_handlers.setdefault(EngineError, _unavailable)
            mounted.exception_handlers.setdefault(QueueFull, _full)
            mounted.exception_handlers.setdefault(RefusedValue, _unprocessable)
            mounted.exception_handlers.setdefault(RefusedArgument, _unprocessable)
            _refuse_in_mounted(mounted)


class Lifespan:
    """The application's own lifespan, with the worker in its middle."""

    def __init__(
        self, serve: Callable[[Any], AbstractAsyncContextManager[Any]], client: Client, serving: Callable[[], Serving]
    ) -> None:
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

    def __init__(self, app: ASGIApp, client: Client, serving: Callable[[], Serving]) -> None:
        self._app = app
        self._client = client
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        origin = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        if not is_unicode(origin):
            origin = shortened(origin)
        request = Publication(self._client, origin=origin, loop=asyncio.get_running_loop())
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

    async def _refuse(self, answer: JSONResponse) -> None:
        self._refused = True
        await answer(self._scope, self._receive, self._send)


class Signals:
    """Calls ``drain`` when the process is told to end, and then whoever handled the signal before.

    Servers tell an application only when its last connection has closed. Works in the main thread; elsewhere the
    lifespan's end is the first that anybody hears.
    """

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:  # else somebody came after us, and would be removed
                signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._drain)
        before = self._before[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, before)
            signal.raise_signal(number)


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


def _too_many(error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=429, headers=RETRY_LATER)


def _refusal() -> JSONResponse:
    return JSONResponse({"detail": UNAVAILABLE}, status_code=503, headers=RETRY_AFTER)
