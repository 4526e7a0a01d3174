"""The boundary of a request, outside all middleware of the application."""

from collections.abc import Callable

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.client.client import Client, current, running_loop
from afterwards.client.request import RequestTasks, request_tasks
from afterwards.core.client_fault import is_client_fault
from afterwards.core.errors import QueueFull, TooLarge
from afterwards.core.text import is_unicode, shortened
from afterwards.web.buffer import anything_to_store, flush_before_response
from afterwards.web.injection import Injection
from afterwards.web.refusals import UNAVAILABLE, UNPROCESSABLE, input_too_large, too_many, unavailable, unprocessable
from afterwards.web.runners import Serving
from afterwards.web.without_lifespan import WithoutLifespan


class Boundary:
    """The outermost middleware, outside the user's. At its exit the response was sent and everything is closed."""

    def __init__(
        self,
        app: ASGIApp,
        client: Client,
        serving: Callable[[], Serving],
        alone: WithoutLifespan,
        injection: Injection,
    ) -> None:
        self._app = app
        self._injection = injection
        self._alone = alone
        self._client = client
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        self._injection.renew()
        origin = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        loop = running_loop()
        if loop is not self._alone.loop:
            self._alone.begin(loop)
        if not is_unicode(origin):
            origin = shortened(origin)
        request = RequestTasks(self._client, origin=origin, loop=loop)
        client_before, request_before = current.set(self._client), request_tasks.set(request)

        outgoing = Outgoing(request, scope, receive, send)
        try:
            await self._app(scope, receive, outgoing.send)
        finally:
            request_tasks.reset(request_before)
            try:
                await request.end()
                if request.used:
                    await self._serving().request_ended()
            finally:
                current.reset(client_before)


class Outgoing:
    """Wraps ``send``: stores calls of objects created by hand before the response begins, or refuses the request."""

    __slots__ = ("_receive", "_refused", "_request", "_scope", "_send")

    def __init__(self, request: RequestTasks, scope: Scope, receive: Receive, send: Send) -> None:
        self._request = request
        self._scope = scope
        self._receive = receive
        self._send = send
        self._refused = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:  # the client is promised nothing
                self._request.failed = True
            else:
                if anything_to_store(self._request):
                    await self._flush()
                if self._request.joining and not self._refused:
                    self._request.tell_of_late_commits()
        if not self._refused:
            self._request.answered = True
            await self._send(message)

    async def _flush(self) -> None:
        try:
            await flush_before_response(self._request)
        except UNAVAILABLE as error:  # if it propagated, Starlette would treat it as raised in the middle of a response
            await self._refuse(unavailable(error))
        except QueueFull as error:
            await self._refuse(too_many(error))
        except UNPROCESSABLE as error:
            await self._refuse(unprocessable(error))
        except TooLarge as error:
            if not is_client_fault(error, self._scope["headers"]):
                raise
            await self._refuse(input_too_large(error))

    async def _refuse(self, answer: JSONResponse) -> None:
        self._refused = True
        await answer(self._scope, self._receive, self._send)
