"""Server-sent events: the response that streams what a client watches, and the format of its events.

FastAPI's own ``fastapi.sse`` came after the oldest supported version, and its streams cannot be ended from outside.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, suppress
from functools import partial
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import anyio
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from afterwards.web.exit_stacks import ExitStacks
from afterwards.web.live import TooManyWatchers
from afterwards.web.refusals import RETRY_LATER, STORE_UNAVAILABLE
from afterwards.web.watcher import Latest, Quiet, StoreAway, Watcher

T = TypeVar("T")

KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment is sent: proxies close connections that are silent for long."""

RECONNECT = 2000
"""Milliseconds after which a browser connects again when its stream has ended."""

LONGEST = 900.0
"""Seconds after which a stream ends. The browser connects again, and is asked again who it is."""

LARGEST = 1024 * 1024
"""Bytes after which a stream ends. A client that reads nothing keeps a server from ending if what was sent fits into no
buffer of the system: uvicorn waits until it is taken. On one machine 2.8 MB fit."""

LAST_WRITE = 0.5
"""Seconds that a client has to take what was sent when the process ends. One that does not read is cut off."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second keeps nginx from buffering


def event(name: str, data: str) -> bytes:
    """Return an event, whose ``data`` is JSON on one line. Its id is the same for the same data."""
    return f"event: {name}\ndata: {data}\nid: {event_id(data)}\n\n".encode()


def event_id(data: str) -> str:
    return blake2b(data.encode(), digest_size=8).hexdigest()


def comment(text: str) -> bytes:
    """Return a line that browsers ignore."""
    return f": {text}\n\n".encode()


class EventStream(StreamingResponse, Generic[T]):
    """Streams what a client watches, until that ends, the client goes away, or the process ends, but not for very long.

    ``events`` makes the events for a state; with the last one it returns False, and the stream ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self, watch: Callable[[], AbstractContextManager[Watcher[T]]], events: Callable[[T], tuple[bytes, bool]]
    ) -> None:
        super().__init__(_nothing(), headers=HEADERS)
        self._watch = watch
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.background is None:  # else its tasks belong to the request, and need its dependencies
            # A session that a dependency opened must not stay open as long as somebody watches.
            await ExitStacks(scope).close_request()
        try:
            with self._watch() as watcher:
                await self._stream(watcher, receive, send)
        except TooManyWatchers:
            await _too_many()(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _stream(self, watcher: Watcher[T], receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group, aclosing(self._told(watcher)) as self.body_iterator:

            async def end_with(wait: Callable[[], Any]) -> None:
                await wait()
                group.cancel_scope.cancel()

            group.start_soon(end_with, partial(self.listen_for_disconnect, receive))
            group.start_soon(end_with, partial(_cut_off, watcher))
            with suppress(OSError):  # the client is gone
                await self.stream_response(send)
            group.cancel_scope.cancel()

    async def _told(self, watcher: Watcher[T]) -> AsyncGenerator[bytes, None]:
        """Yield the content, as long as it is neither too long nor too large."""
        until, size = anyio.current_time() + LONGEST, 0
        async with aclosing(self._content(watcher)) as content:
            async for part in content:
                yield part
                size += len(part)
                if size >= LARGEST or anyio.current_time() >= until:
                    return

    async def _content(self, watcher: Watcher[T]) -> AsyncGenerator[bytes, None]:
        yield f"retry: {RECONNECT}\n\n".encode()
        async with aclosing(watcher.news(quiet=KEEP_ALIVE)) as news:
            async for one in news:
                match one:
                    case Latest(value):
                        sent, goes_on = self._events(value)
                        yield sent
                        if not goes_on:
                            return
                    case StoreAway():
                        yield comment(STORE_UNAVAILABLE)
                    case Quiet():
                        yield comment("still here")


async def _cut_off(watcher: Watcher[Any]) -> None:
    """Return a moment after the watching has ended."""
    await watcher.ended.wait()
    await anyio.sleep(LAST_WRITE)


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield


def _too_many() -> Response:
    return JSONResponse({"detail": "Too many clients are watching"}, status_code=503, headers=RETRY_LATER)
