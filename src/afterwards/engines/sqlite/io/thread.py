"""A thread that owns a connection, and runs operations for coroutines of any event loop."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from afterwards.core.errors import EngineUnavailable
from afterwards.engines.sqlite.io.connection import Connection, OwnConnection
from afterwards.engines.sqlite.io.errors import is_broken_by, translated
from afterwards.engines.sqlite.io.file_identity import OpenFiles
from afterwards.engines.sqlite.io.operation import FunctionOperation, Operation
from afterwards.telemetry import log

R = TypeVar("R")

LONGEST_CALL = 30.0
"""Seconds after which a thread counts as stuck, and nobody waits for it. Waits for locks end long before."""

LONGEST_JOIN = 5.0

SHARING_WINDOW = 0.005
"""Seconds that an operation waits for others to share its commit, as long as others keep coming."""

MOST_AT_ONCE = 1000


class Signal(Enum):
    """A signal to a thread, beside operations."""

    LOOK = auto()
    STOP = auto()


class ConnectionThread:
    """A thread that runs operations on a connection that no other thread uses. Subclasses define how."""

    name: str

    def __init__(self, path: Path, connect: Callable[[], OwnConnection]) -> None:
        self._path = path
        self._connect = connect
        self._queue: SimpleQueue[Sequence[Operation[Any] | Signal]] = SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[Operation[Any]]] = {}
        self._connection: OwnConnection | None = None
        self._name = str(path)
        self._files: OpenFiles | None = None
        self._current: Sequence[Operation[Any]] = ()
        self._company_until = 0.0  # when tasks were stored a moment ago, more are likely to come
        self._busy_since: float | None = None
        self._dead: Exception | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to work; if the thread of an earlier start has not ended yet, after its end."""
        name = f"afterwards-sqlite-{self.name}"
        thread = threading.Thread(target=self._main, args=(self._thread,), name=name, daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Finish the calls made so far, close the connection, and end. Later calls wait for the next start."""
        self._queue.put((Signal.STOP,))

    def join(self, timeout: float = LONGEST_JOIN) -> bool:
        """Wait for the thread to end. Returns True if it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def nudge(self) -> None:
        """Wake the thread to check for other processes' changes."""
        self._queue.put((Signal.LOOK,))

    def call(self, function: Callable[[Connection], R]) -> "asyncio.Future[R]":
        """Have the thread run a function."""
        return self.ask(FunctionOperation(function))

    def ask(self, operation: Operation[R]) -> "asyncio.Future[R]":
        """Have the thread run an operation."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        operation.future = future
        # Operations that coroutines submit in one turn of their loop are handed in together. Waking the thread for each
        # would make it compete for the interpreter with coroutines that are about to submit more.
        if gathered := self._gathered.get(loop):
            gathered.append(operation)
        else:
            self._gathered[loop] = [operation]
            loop.call_soon(self.hand_in)
        return future

    def hand_in(self) -> None:
        """Give the thread the operations that were submitted on this event loop."""
        if gathered := self._gathered.pop(asyncio.get_running_loop(), None):
            self.submit(gathered)

    def submit(self, operations: Sequence[Operation[Any]]) -> None:
        self._queue.put(operations)
        if self._dead is not None:  # it died before it could see these
            self._fail(operations, self._dead)

    def refuse(self, error: Exception) -> None:
        """Fail the waiting operations, and later ones."""
        self._dead = error
        self._fail_all(error)

    def watch(self) -> None:
        """Check from another thread whether this one is stuck, say in a system call. If so, fail its callers."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > LONGEST_CALL:
            self._fail_all(EngineUnavailable(f"the {self.name} has not answered for {LONGEST_CALL:.0f} s"))

    # Methods that run in the thread.

    def _main(self, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()  # two threads may not use one connection
        try:
            self._work_until_stopped()
        except BaseException as error:  # nobody may wait for a thread that has ended, whatever the error was
            log.critical(f"the {self.name} of {self._path} died; tasks are refused from now on", exc_info=error)
            died = EngineUnavailable(f"the {self.name} of {self._path} died: {error!r}; restart this process")
            died.__cause__ = error
            self.refuse(died)
        finally:
            self._disconnect()

    def _work_until_stopped(self) -> None:
        signals: Sequence[object] = ()
        while Signal.STOP not in signals:
            found = self._next(self._pause())
            self._current = [one for one in found if isinstance(one, Operation) and not one.abandoned]
            if self._current:
                self._busy_since = time.monotonic()
                self._perform(self._current)
                self._busy_since = None
                self._answer(self._current)
            signals = [one for one in found if isinstance(one, Signal)] if len(self._current) < len(found) else ()
            self._current = ()
            self._look_around(nudged=bool(signals))

    def _answer(self, operations: Sequence[Operation[Any]]) -> None:
        """Deliver the answers. Operations that wait on are queued again, with those that have come meanwhile."""
        again = [one for one in operations if one.waits_on]
        for one in again:
            one.waits_on = False
        if again:
            self._queue.put(again)
            operations = [one for one in operations if one not in again]
        _deliver(operations)

    def _next(self, pause: float | None) -> list[Operation[Any] | Signal]:
        """Return the queued operations and signals; nothing when the pause is over."""
        found: list[Operation[Any] | Signal] = []
        with suppress(Empty):
            found += self._queue.get(timeout=pause)
            until = min(time.monotonic() + SHARING_WINDOW, self._company_until)
            while all(isinstance(one, Operation) and one.shares_commit for one in found):
                found += self._queue.get(timeout=max(0.0, until - time.monotonic()))
        with suppress(Empty):
            while len(found) < MOST_AT_ONCE:
                found += self._queue.get_nowait()
        if any(isinstance(one, Operation) and one.only_adds for one in found):
            self._company_until = time.monotonic() + 2 * SHARING_WINDOW
        return found

    def _pause(self) -> float | None:
        """Return the seconds until the thread shall check for changes by itself."""
        return None

    def _look_around(self, *, nudged: bool) -> None:
        """Do the work that no operation asks for."""

    def _perform(self, operations: Sequence[Operation[Any]]) -> None:
        """Run operations, and record the result in each. Raises no error that a file can cause."""
        raise NotImplementedError

    def _connected(self) -> OwnConnection:
        """Return the connection. The first user opens it; if that fails, the next one tries again."""
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _disconnect_if_changed(self) -> None:
        """Disconnect from a file that was deleted or replaced, or whose log or index was."""
        if self._files is not None and self._have_changed(self._files):
            self._disconnect()

    def _have_changed(self, files: OpenFiles) -> bool:
        return files.have_changed()

    def _open(self) -> OwnConnection:
        connection = self._connect()
        self._files = OpenFiles(self._name)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection, self._files = self._connection, None, None
        if connection is not None:
            connection.close()

    def _failed(self, operations: Iterable[Operation[Any]], error: Exception) -> None:
        """Record the error in operations. Close a connection that would never work again."""
        if is_broken_by(error) or (self._connection is not None and self._connection.in_transaction):
            self._disconnect()
        for operation in operations:
            operation.error = translated(error, self._path)

    def _waiting(self) -> list[Operation[Any]]:
        found: list[Operation[Any]] = []
        with suppress(Empty):
            while True:
                found += [one for one in self._queue.get_nowait() if isinstance(one, Operation)]
        return found

    def _fail_all(self, error: Exception) -> None:
        self._fail([*self._current, *self._waiting()], error)

    def _fail(self, operations: Sequence[Operation[Any]], error: Exception) -> None:
        for operation in operations:
            operation.error = translated(error, self._path)
        _deliver(operations)


def _deliver(operations: Iterable[Operation[Any]]) -> None:
    """Deliver the answers with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Operation[Any]]] = {}
    for operation in operations:
        if operation.future is not None:
            by_loop.setdefault(operation.future.get_loop(), []).append(operation)
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_answer, some)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            for operation in some:
                operation.give_up()


def _answer(operations: Iterable[Operation[Any]]) -> None:
    for operation in operations:
        operation.answer()
