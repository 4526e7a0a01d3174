"""A TCP proxy that makes trouble on the way to a server: it delays, holds up, loses and resets, as it is told."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")
PIECE = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST instead of FIN


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass everything on, each piece after a delay between these spans, in seconds."""

    shortest: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Pass nothing on. All that was held up is passed on when another mode follows, as after a cable was plugged in."""


@dataclass(frozen=True, slots=True)
class Swallow:
    """Accept new connections and answer nothing, as a firewall that drops packets. Existing ones are not affected."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Reset new connections. Existing ones are not affected."""


Mode = Forward | Hold | Swallow | Refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Reset a connection in the middle of an answer: after this many bytes of it.

    The answer is to the next piece from any client for which ``asked`` is true.
    """

    after: int = 0
    asked: Callable[[bytes], bool] = bool


class Proxy:
    """A proxy on a port of its own, in a thread of its own. Any thread may tell it what to do.

    Each method returns when it has done so. The same seed draws the same delays, in the order in which pieces arrive.
    """

    def __init__(self, to_port: int, *, seed: int | str = 0) -> None:
        self._target = ("127.0.0.1", to_port)
        self._random = Random(seed)
        self._mode: Mode = Forward()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cuts: list[Cut] = []
        self.cuts_taken = 0  # by pieces whose answers may be still to come
        self.cuts_made = 0
        self._loop = asyncio.new_event_loop()
        self._moving = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._on_loop(asyncio.start_server(self._accept, sock=self._listening, limit=PIECE))
        self.switch(Forward())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._on_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections a client has open, alive or not."""
        return len(self._links)

    def switch(self, mode: Mode) -> None:
        """Treat all bytes and connections that arrive from now on like this."""
        self._do(lambda: self._switch(mode))

    def reset(self) -> None:
        """Reset all connections, both ways."""
        self._each(_Link.reset)

    def half_open(self) -> None:
        """Close all connections at the server's end; clients are not told, and get no more answers."""
        self._each(lambda link: link.become(Fate.HALF_OPEN))

    def lose(self) -> None:
        """Lose all connections: neither end is told, and nothing of what they send arrives any more."""
        self._each(lambda link: link.become(Fate.LOST))

    def cut(self, cut: Cut) -> None:
        """Cut one answer, once. Several that were ordered are made in their order."""
        self._do(lambda: self._cuts.append(cut))

    def forget_cuts(self) -> None:
        """Make no more of the cuts that were ordered."""
        self._do(self._cuts.clear)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            await self._link(Stream(reader, writer))

    async def _link(self, client: "Stream") -> None:
        link = _Link(self, client)
        self._links.add(link)
        try:
            if isinstance(self._mode, Swallow):
                link.become(Fate.LOST)
            elif not isinstance(self._mode, Refuse):
                await self._moving.wait()
                link.server = Stream(*await asyncio.open_connection(*self._target, limit=PIECE))
            else:
                return
            await link.forward()
        finally:
            link.reset()
            self._links.discard(link)

    async def pass_on(self) -> None:
        """Return when a piece may go on, by the mode."""
        await self._moving.wait()
        if isinstance(self._mode, Forward) and self._mode.longest:
            await asyncio.sleep(self._random.uniform(self._mode.shortest, self._mode.longest))

    def cut_for(self, asked: bytes) -> Cut | None:
        """Take the next cut, if it is to be made in the answer to this."""
        if self._cuts and self._cuts[0].asked(asked):
            self.cuts_taken += 1
            return self._cuts.pop(0)
        return None

    def _switch(self, mode: Mode) -> None:
        self._mode = mode
        if isinstance(mode, Hold):
            self._moving.clear()
        else:
            self._moving.set()

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _each(self, action: Callable[["_Link"], None]) -> None:
        def act() -> None:
            for link in list(self._links):
                action(link)

        self._do(act)

    def _do(self, action: Callable[[], Any]) -> None:
        async def act() -> None:
            action()

        self._on_loop(act())

    def _on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)


class Fate(Enum):
    ALIVE = auto()
    HALF_OPEN = auto()
    LOST = auto()


class Stream(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        """Close with RST: the other end gets ECONNRESET, and what it has not sent yet is lost."""
        transport = self.writer.transport
        if not transport.is_closing():
            with suppress(OSError):
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()


class _Link:
    """One client's connection, and ours to the server for it."""

    def __init__(self, proxy: Proxy, client: Stream) -> None:
        self._proxy = proxy
        self._client = client
        self.server: Stream | None = None
        self._fate = Fate.ALIVE
        self._cut_in: int | None = None  # bytes of the answer until the reset

    async def forward(self) -> None:
        """Pass on until both ends have ended."""
        await asyncio.gather(self._requests(), self._answers())

    def become(self, fate: Fate) -> None:
        if self._fate is Fate.ALIVE:
            self._fate = fate
            if fate is Fate.HALF_OPEN and self.server:
                self.server.reset()

    def reset(self) -> None:
        self._client.reset()
        if self.server:
            self.server.reset()

    async def _requests(self) -> None:
        while piece := await self._client.reader.read(PIECE):
            await self._proxy.pass_on()
            if self._fate is Fate.ALIVE and self.server:
                if cut := self._proxy.cut_for(piece):
                    self._cut_in = cut.after
                self.server.writer.write(piece)
                await self.server.writer.drain()
        if self.server and self._fate is not Fate.LOST:
            self.server.writer.close()

    async def _answers(self) -> None:
        """Pass on the server's answers and its end. A client that must not be told goes on waiting."""
        if self.server is None:
            return
        try:
            while piece := await self.server.reader.read(PIECE):
                await self._proxy.pass_on()
                if self._fate is Fate.ALIVE:
                    await self._answer(piece)
        except OSError:
            if self._fate is Fate.ALIVE:
                self._client.reset()
        if self._fate is Fate.ALIVE:
            self._client.writer.close()

    async def _answer(self, piece: bytes) -> None:
        cut = self._cut_in is not None and self._cut_in < len(piece)
        self._client.writer.write(piece[: self._cut_in] if cut else piece)
        await self._client.writer.drain()
        if cut:
            self._proxy.cuts_made += 1
            self.reset()
        elif self._cut_in is not None:
            self._cut_in -= len(piece)
