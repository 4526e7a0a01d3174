"""Threads for ``def`` functions: separate from the endpoints' threads, and daemons, so that a process can end."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from enum import Enum, auto
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, TypeVar

from anyio.lowlevel import current_token

from afterwards import telemetry
from afterwards.core.shortage import Shortage, is_shortage

try:
    from anyio._core._eventloop import threadlocals
except ImportError:  # another version keeps it elsewhere: then `anyio.from_thread` asks for a token in our threads
    threadlocals = threading.local()

T = TypeVar("T")

Ended = tuple[T | None, BaseException | None]
"""Outcome of a call: its return value or its exception. A future does not accept every exception."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries to start a thread when the system has none left: first pause, and limit of doubling."""


class StopIterationRaised(RuntimeError):
    """Carries the ``StopIteration`` of a function as its cause: Python lets no coroutine raise that itself."""


class OnCancel(Enum):
    """The effect of a cancelled caller on its call, once a thread runs it."""

    LEAVE = auto()  # it continues, and its outcome is ignored
    WAIT = auto()  # its caller waits for its end
    MAKE = auto()  # as WAIT, and the call is made even if no thread has taken it yet


class ThreadCall(Generic[T]):
    """A call in a thread: it waits for a thread, then runs in one, then has ended."""

    __slots__ = ("_context", "_function", "_loop", "_taken", "_token", "ended", "future", "made", "on_cancel")

    def __init__(self, function: Callable[[], T], context: Context, on_cancel: OnCancel) -> None:
        self._function = function
        self._context = context  # the caller's context variables
        self._loop = asyncio.get_running_loop()
        self._token = current_token()
        self._taken = threading.Lock()  # acquired by the thread or by `drop`; never released
        self.future: asyncio.Future[Ended[T]] = self._loop.create_future()
        self.on_cancel = on_cancel
        self.made = False  # or is being made
        self.ended = False

    @property
    def taken(self) -> bool:
        return self._taken.locked()

    @property
    def at_work(self) -> bool:
        return not self.ended and (self.taken or self.on_cancel is OnCancel.MAKE)

    def drop(self) -> bool:
        """Prevent the call. Return False if a thread runs it, which cannot be stopped."""
        if self.on_cancel is not OnCancel.MAKE and self._taken.acquire(blocking=False):
            self.ended = True
        return self.ended

    def make(self) -> None:
        """Make the call in this thread, unless it was dropped."""
        if not self._taken.acquire(blocking=False):
            return
        self.made = True
        threadlocals.current_token = self._token  # so that functions may call back with `anyio.from_thread`
        outcome: Ended[T]
        try:
            outcome = self._context.run(self._function), None
        except BaseException as error:  # any exception of the user's function is its outcome
            outcome = None, error
        self.ended = True
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it
            self._loop.call_soon_threadsafe(_answer, self, outcome)


calls: ContextVar[list[ThreadCall[Any]] | None] = ContextVar("afterwards_calls", default=None)
"""Records the thread calls made in this context."""


def made_from_here() -> list[ThreadCall[Any]]:
    """Return a list of the thread calls made from now on in this context. It grows with each call."""
    made: list[ThreadCall[Any]] = []
    calls.set(made)
    return made


class Threads:
    """At most ``size`` daemon threads, started when needed. (anyio's threads keep the interpreter from ending.)"""

    def __init__(self, size: float = inf) -> None:
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[ThreadCall[Any] | None] = SimpleQueue()

    async def run(
        self, function: Callable[[], T], *, on_cancel: OnCancel = OnCancel.LEAVE, give_up_after: float = inf
    ) -> T:
        """Call a function in a thread, with the caller's context variables.

        If it is cancelled before a thread took it, it is not called. If the system has no thread left it waits for one.
        Raises Shortage after ``give_up_after``, in seconds. A second cancellation ends the wait for a running call.
        """
        call = ThreadCall(function, copy_context(), on_cancel)
        made = calls.get()
        if made is not None:
            made.append(call)
        self._calls.put(call)
        try:
            if not self._idle.acquire(blocking=False) and self._count < self._size and not self._grow():
                await self._grow_patiently(call, give_up_after)
            return _returned(await call.future)
        except asyncio.CancelledError:
            if not call.drop() and on_cancel is not OnCancel.LEAVE:
                await self._end(call)
            raise

    async def _end(self, call: ThreadCall[Any]) -> None:
        """Wait for the end of a call whose caller was cancelled."""
        call.future = asyncio.get_running_loop().create_future()
        try:
            await self._grow_patiently(call, inf)
            await asyncio.wait([call.future])
        finally:
            call.future.cancel()

    def allow_one_more(self) -> None:
        """Allow one more thread, because a call only waits in its own."""
        self._size += 1

    def allow_one_less(self) -> None:
        """Undo ``allow_one_more``. There may be one thread too many for a while."""
        self._size -= 1

    def close(self) -> None:
        """Let the threads end after their current calls. Later calls get new threads."""
        for _ in range(self._count):
            self._calls.put(None)
        self._begin()

    def _grow(self) -> bool:
        """Start another thread, if the system permits."""
        work = threading.Thread(
            target=_work, args=(self._calls, self._idle), name=f"afterwards-{self._count + 1}", daemon=True
        )
        try:
            work.start()
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            telemetry.short("start a thread", error)
            return False
        self._count += 1
        return True

    async def _grow_patiently(self, call: ThreadCall[Any], give_up_after: float) -> None:
        """Wait until a thread could be started, or an existing one has taken the call."""
        pause, until = FIRST_PAUSE, monotonic() + give_up_after
        while not call.taken and self._count < self._size:
            if monotonic() > until and call.drop():
                raise Shortage("no thread could be started")
            await asyncio.wait([call.future], timeout=pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if call.taken or self._grow():
                return


def _work(calls: "SimpleQueue[ThreadCall[Any] | None]", idle: threading.Semaphore) -> None:
    while (call := _next(calls, idle)) is not None:
        call.make()
        del call  # release the objects of the last call while the thread is idle


def _next(calls: "SimpleQueue[ThreadCall[Any] | None]", idle: threading.Semaphore) -> ThreadCall[Any] | None:
    try:
        return calls.get_nowait()
    except Empty:
        idle.release()
        return calls.get()


def _answer(call: ThreadCall[T], outcome: Ended[T]) -> None:
    if not call.future.done():
        call.future.set_result(outcome)


def _returned(outcome: Ended[T]) -> T:
    """Return the function's result, or raise its exception."""
    result, error = outcome
    if error is None:
        return result  # type: ignore[return-value]  # one of the two is there
    try:
        if issubclass(type(error), StopIteration):
            raise StopIterationRaised(f"the function raised {type(error).__name__}") from error
        raise error
    finally:
        del outcome, error  # both hold this frame through the traceback
