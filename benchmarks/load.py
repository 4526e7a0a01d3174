"""A cheap load generator: raw sockets, one request after the other on each connection."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import cast

from benchmarks.measure import run

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
REQUEST = b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n"
SETTLED = 0.002
"""Seconds between two polls for unfinished tasks."""


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one load: requests and times."""

    accepted: int
    answered: float  # seconds until the last answer
    finished: float  # seconds until the last task had ended

    @property
    def rate(self) -> float:
        """Requests per second until their last task had finished."""
        return self.accepted / self.finished


def load(port: int, connections: int, seconds: float, left: Callable[[], int]) -> Load:
    """Send requests for a time, then wait until all tasks have finished. Raises for any answer but 200."""
    begun = perf_counter()
    accepted = run(_load(port, connections, begun + seconds))
    answered = perf_counter() - begun
    while left():
        sleep(SETTLED)
    return Load(accepted, answered, perf_counter() - begun)


async def _load(port: int, connections: int, until: float) -> int:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Connection(until), "127.0.0.1", port) for _ in range(connections)]
    return sum([await connection.accepted for _, connection in made])


class Connection(asyncio.Protocol):
    """Sends the next request after each answer, until the time is over."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._count = 0
        self._came = b""
        self.accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not _complete(self._came):
            return
        if not self._came.startswith(b"HTTP/1.1 200"):
            self._end(RuntimeError(f"the server answered {self._came!r}"))
            return
        self._came = b""
        self._count += 1
        if perf_counter() < self._until:
            self._transport.write(REQUEST)
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if self.accepted.done():
            return
        if error is None:
            self.accepted.set_result(self._count)
        else:
            self.accepted.set_exception(error)
        self._transport.close()


def _complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    found = LENGTH.search(head)
    return found is not None and len(body) >= int(found[1])
