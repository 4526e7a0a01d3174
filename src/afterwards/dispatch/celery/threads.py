"""Threads for Celery's calls, which block: they end when idle, and keep no process from ending."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakMethod

T = TypeVar("T")

MOST = 4
"""Threads at once: each has its own connection to the broker."""

IDLE = 30.0
"""Seconds without work after which a thread closes what it has opened, before a firewall forgets it, and ends."""


class Closing(Protocol):
    """Something that was opened."""

    def close(self) -> None: ...


class Opened:
    """The resources that one thread keeps open between two pieces of work, by key."""

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}

    def close(self, key: Any) -> None:
        """Close one, if it is open."""
        kept: Closing | None = self.kept.pop(key, None)
        if kept is not None:
            kept.close()

    def close_all(self) -> None:
        for key in [*self.kept]:
            self.close(key)


Work = Callable[[Opened], T]


class Threads:
    """A few daemon threads. A ThreadPoolExecutor's would have to end before the process may.

    One thread does its work in the order in which it came.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._forget()
        if hasattr(os, "register_at_fork"):  # the threads, and what they have opened, belong to the parent
            forget = WeakMethod(self._forget)
            os.register_at_fork(after_in_child=lambda: (forget() or _do_nothing)())

    async def run(self, work: Work[T], within: float | None) -> T:
        """Run ``work`` in a thread. Raises TimeoutError after ``within`` seconds; what has not begun never runs."""
        done: Future[T] = Future()
        self._submit(done, work)
        async with asyncio.timeout(within):
            return await asyncio.wrap_future(done)

    def _forget(self) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Work[Any]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._running = self._unfinished = 0

    def _submit(self, done: "Future[T]", work: Work[T]) -> None:
        with self._lock:
            self._unfinished += 1
            self._work.put((done, work))
            if self._running < min(self._unfinished, self._most):
                threading.Thread(target=self._serve, name="afterwards-celery", daemon=True).start()
                self._running += 1

    def _serve(self) -> None:
        opened = Opened()
        while (item := self._next()) is not None:
            self._do(*item, opened)
            del item  # it refers to a request
        opened.close_all()

    def _do(self, done: "Future[T]", work: Work[T], opened: Opened) -> None:
        begun = done.set_running_or_notify_cancel()
        try:
            result = work(opened) if begun else None
        except BaseException as error:  # an application's signal handlers and task classes may raise anything
            self._end_one()
            done.set_exception(error)
        else:
            self._end_one()  # before the caller goes on: its next work then finds this thread, and what it has opened
            if begun:
                done.set_result(cast(T, result))

    def _end_one(self) -> None:
        with self._lock:
            self._unfinished -= 1

    def _next(self) -> "tuple[Future[Any], Work[Any]] | None":
        while True:
            try:
                return self._work.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if self._work.empty():
                        self._running -= 1
                        return None


def _do_nothing() -> None: ...


sending, asking = Threads(), Threads()
"""Those that talk to brokers, and those that ask result backends: one that hangs does not stop the other."""
