"""The thread whose event loop runs the driver, and the way into it from any other thread and loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from afterwards.core.errors import EngineError, EngineUnavailable

A = TypeVar("A")
R = TypeVar("R")


class LoopThread:
    """An event loop in a thread of its own. No caller's loop has a part in it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="afterwards-postgres", daemon=True)
        self._calls: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self.lanes: list[Lane[Any, Any]] = []

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system has none left."""
        try:
            self._thread.start()
        except RuntimeError:
            self.loop.close()
            raise

    def post(self, call: Callable[[], object]) -> None:
        """Call a function in the thread. Raises EngineUnavailable if it has ended."""
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            raise EngineUnavailable("the engine is closed") from None

    def spawn(self, work: Coroutine[Any, Any, None], *, background: bool = False) -> None:
        """Start a task that nobody waits for. Called in the thread. A background task does not delay the end."""
        tasks = self._background if background else self._calls
        task = self.loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def stop(self, *, patience: float, last: Callable[[], None]) -> None:
        """Finish the calls made so far, then end the thread. Blocks; may be called in any other thread."""
        asyncio.run_coroutine_threadsafe(self._end(patience, last), self.loop)
        self._thread.join()

    async def _end(self, patience: float, last: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(patience):
                while self._calls:
                    await asyncio.wait([*self._calls])
        except TimeoutError:
            pass  # they are answered by their cancellation
        left = [*self._calls, *self._background]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1)
        for lane in self.lanes:
            lane.refuse()
        last()
        self.loop.call_soon(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


class Waiting(Generic[A, R]):
    """A caller that waits for its part of a batch."""

    __slots__ = ("argument", "future", "loop", "take_back")

    def __init__(self, argument: A, future: asyncio.Future[R], take_back: Callable[[R], None] | None) -> None:
        self.argument = argument
        self.future = future
        self.loop = future.get_loop()
        self.take_back = take_back

    def answer(self, result: R | BaseException) -> None:
        """Deliver the answer. Called on the caller's loop."""
        if self.future.done():
            self.give_up(result)
        elif isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)

    def give_up(self, result: R | BaseException) -> None:
        """Take back a result for which nobody waits any more."""
        if self.take_back is not None and not isinstance(result, BaseException):
            self.take_back(result)


class Lane(Generic[A, R]):
    """Collect calls that arrive at the same time, and run them as one batch.

    While ``in_flight`` batches are under way, further calls collect for the next one. If a batch fails for a reason
    that may concern only one of its calls, each is run alone.
    """

    def __init__(
        self,
        thread: LoopThread,
        run: Callable[[Sequence[A]], Awaitable[Sequence[R]]],
        *,
        most: int = 1000,
        in_flight: int = 2,
        size: Callable[[A], int] = lambda _: 1,
    ) -> None:
        self._thread = thread
        self._run = run
        self._most = most
        self._free = in_flight
        self._size = size
        self._lock = threading.Lock()
        self._arrived: list[Waiting[A, R]] = []
        self._is_posted = False
        self._is_refusing = False
        thread.lanes.append(self)

    async def call(self, argument: A, take_back: Callable[[R], None] | None = None) -> R:
        """Return the result for one argument. If the caller is cancelled, ``take_back`` gets the result."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.ask(argument, future, take_back)
        return await future

    def ask(self, argument: A, future: asyncio.Future[R], take_back: Callable[[R], None] | None = None) -> None:
        with self._lock:
            if self._is_refusing:
                raise EngineUnavailable("the engine is closed")
            self._arrived.append(Waiting(argument, future, take_back))
            if self._is_posted:
                return
            self._is_posted = True
        self._thread.post(self._collect)

    def refuse(self) -> None:
        """Refuse the calls that have not begun, and all later ones."""
        with self._lock:
            self._is_refusing = True
            batch, self._arrived = self._arrived, []
        _deliver(batch, [EngineUnavailable("the engine was closed") for _ in batch])

    def _collect(self) -> None:
        with self._lock:
            self._is_posted = False
        self._start()

    def _start(self) -> None:
        while self._free and (batch := self._next()):
            self._free -= 1
            self._thread.spawn(self._work(batch))

    def _next(self) -> list[Waiting[A, R]]:
        """Remove and return the calls of the next batch: at least one, and at most so many that it stays short."""
        with self._lock:
            size = 0
            for number, waiting in enumerate(self._arrived):
                size += self._size(waiting.argument)
                if number and size > self._most:
                    batch, self._arrived = self._arrived[:number], self._arrived[number:]
                    return batch
            batch, self._arrived = self._arrived, []
            return batch

    async def _work(self, batch: Sequence[Waiting[A, R]]) -> None:
        try:
            await self._answer(batch)
        finally:
            self._free += 1
            self._start()

    async def _answer(self, batch: Sequence[Waiting[A, R]]) -> None:
        try:
            results: Sequence[R | BaseException] = await self._run([one.argument for one in batch])
        except EngineUnavailable as error:
            results = [_copy(error) for _ in batch]
        except Exception as error:  # whatever it is, it may concern one call and no other
            if len(batch) > 1:
                for one in batch:
                    await self._answer([one])
                return
            results = [error]
        except BaseException:
            _deliver(batch, [EngineUnavailable("the engine was closed") for _ in batch])
            raise
        _deliver(batch, results)


def _copy(error: EngineError) -> EngineError:
    """Return a new error for each caller, because raising an error writes to it."""
    copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy


def _deliver(batch: Sequence[Waiting[A, R]], results: Sequence[R | BaseException]) -> None:
    """Answer all callers, with one call for each of their loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiting[A, R], R | BaseException]]] = {}
    for waiting, result in zip(batch, results, strict=True):
        by_loop.setdefault(waiting.loop, []).append((waiting, result))
    for loop, answers in by_loop.items():
        try:
            loop.call_soon_threadsafe(_answer_all, answers)
        except RuntimeError:  # its loop is closed: nobody waits there any more
            for waiting, result in answers:
                with suppress(EngineUnavailable):
                    waiting.give_up(result)


def _answer_all(answers: Sequence[tuple[Waiting[A, R], R | BaseException]]) -> None:
    for waiting, result in answers:
        waiting.answer(result)
