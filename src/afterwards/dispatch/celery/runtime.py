"""Runs an application's tasks in a process of Celery's: its lifespan and a worker, on an event loop in a thread."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from billiard.exceptions import SoftTimeLimitExceeded

from afterwards.core.task import Lease
from afterwards.dispatch.fleet import FleetWorker, Serve
from afterwards.telemetry import fleet

NOTHING_RUNS = 10.0
"""Seconds that a message waits in a process that cannot run tasks and is about to end. So few messages are lost."""

LOOK_EVERY = 1.0
"""Seconds between two looks whether the event loop has ended instead of answering."""


class Runtime:
    """The thread of this process that runs tasks. The threads of Celery's pool wait in ``run`` for their ends."""

    def __init__(self, serve: Serve, *, queues: frozenset[str] | None, slots: int, failed: Callable[[], None]) -> None:
        self._serve = partial(serve, queues=queues, slots=slots)
        self._failed = failed  # ends the Celery worker
        self._thread = threading.Thread(target=self._main, name="afterwards-fleet", daemon=True)
        self._begun = threading.Event()  # or ended already
        self._ended = threading.Event()
        self._worker: FleetWorker | None = None
        self._over = threading.Event()  # from when the process is told to end
        self._drains = self._drained = 0  # how often it was told to drain, and how often the worker was told
        self._attempts: set[asyncio.Task[bool]] = set()

    def start(self) -> None:
        self._thread.start()

    def run(self, lease: Lease) -> bool:
        """Return when the end of this attempt is stored. False if it was not run here."""
        self._begun.wait()
        if self._worker is None:
            self._over.wait(NOTHING_RUNS)
            return False
        # A signal's handler may interrupt this thread, so it waits without a lock that another thread needs.
        answer: SimpleQueue[bool] = SimpleQueue()
        self._on_loop(partial(self._begin, self._worker, lease, answer.put))
        while True:
            try:
                return answer.get(timeout=LOOK_EVERY)
            except Empty:
                if self._ended.is_set():
                    return False
            except SoftTimeLimitExceeded:
                fleet.soft_time_limit()

    @property
    def busy(self) -> bool:
        """Return whether an attempt runs here."""
        return bool(self._attempts)

    def drain(self, times: int = 1) -> None:
        """Give back what still runs after the grace period; at once, for two times. Fewer than before do nothing."""
        self._drains = max(self._drains, times)
        self._over.set()
        self._on_loop(self._drain)

    def stop(self, within: float) -> None:
        """Leave the application's lifespan, and wait for that so many seconds."""
        self._over.set()
        self._begun.wait(within)
        self._on_loop(lambda: self._stopped.set())
        self._thread.join(within)
        if self._thread.is_alive():
            fleet.slow_end(within)

    def _main(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # an application's lifespan may raise anything
            (fleet.stopped_serving if self._worker else fleet.cannot_serve)(error)
            self._failed()
        finally:
            self._begun.set()
            self._ended.set()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        async with self._serve() as self._worker:
            self._begun.set()
            self._drain()
            await self._stopped.wait()

    def _drain(self) -> None:
        while self._worker is not None and self._drained < self._drains:
            self._drained += 1
            self._worker.drain()

    def _begin(self, worker: FleetWorker, lease: Lease, answer: Callable[[bool], None]) -> None:
        attempt = self._loop.create_task(worker.run(lease))
        self._attempts.add(attempt)  # the loop itself keeps no task alive
        attempt.add_done_callback(partial(self._answer, answer))

    def _answer(self, answer: Callable[[bool], None], attempt: asyncio.Task[bool]) -> None:
        self._attempts.discard(attempt)
        answer(not attempt.cancelled() and attempt.exception() is None and attempt.result())

    def _on_loop(self, call: Callable[[], object]) -> None:
        """Call something on the event loop, if that has begun and is not over."""
        with suppress(RuntimeError):  # it is closed
            if self._worker is not None:
                self._loop.call_soon_threadsafe(call)
