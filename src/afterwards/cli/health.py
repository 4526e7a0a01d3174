"""The HTTP server for liveness and readiness probes of a worker."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from afterwards.cli.errors import CommandError
from afterwards.core.verdict import Verdict

REQUEST_TIMEOUT = 5.0
"""Seconds within which a probe must have sent its request."""


Check = Callable[[], Awaitable[Verdict]]


async def _not_yet() -> Verdict:
    return Verdict(False, "the application is starting")


async def _starting() -> Verdict:
    return Verdict(True, "the application is starting")


class Health:
    """The current checks. They are replaced when the worker has started.

    ``live`` fails when a restart would help: the worker has stopped claiming. ``ready`` fails while the store is
    unavailable.
    """

    def __init__(self) -> None:
        self.live: Check = _starting
        self.ready: Check = _not_yet


@asynccontextmanager
async def serve_health(health: Health, address: tuple[str, int] | None) -> AsyncIterator[None]:
    """Answer ``GET /live`` and ``GET /ready`` inside the block; without an address, do nothing. Raises CommandError."""
    if address is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _response(health, request))
            await writer.drain()
        writer.close()

    host, port = address
    try:
        server = await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise CommandError(f"--health-port {port}: {error.strerror or error}") from error
    async with server:
        yield


async def _response(health: Health, request: bytes) -> bytes:
    method, path, *_ = request.split(b" ", 2)
    check = {b"/live": health.live, b"/ready": health.ready}.get(path.partition(b"?")[0])
    if check is None or method not in {b"GET", b"HEAD"}:
        return _written("404 Not Found", {"detail": "there are GET /live and GET /ready"}, method)
    verdict = await check()
    return _written("200 OK" if verdict.well else "503 Service Unavailable", {"detail": verdict.reason}, method)


def _written(status: str, body: dict[str, str], method: bytes) -> bytes:
    content = json.dumps(body).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(content)}", "Connection: close")
    head = "\r\n".join((f"HTTP/1.1 {status}", *headers, "", ""))
    return head.encode() + (b"" if method == b"HEAD" else content)
