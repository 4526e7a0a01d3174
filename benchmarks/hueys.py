"""Huey's SQLite queue with our durability: WAL, ``synchronous=FULL``, one thread that looks every 10 ms."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns, sleep

from huey import SqliteHuey  # type: ignore[import-untyped]  # it has none

POLL = 0.01


class Hueys:
    """A queue with two tasks: one that does nothing, and one that notes how long it took to start."""

    def __init__(self, file: Path) -> None:
        logging.getLogger("huey").setLevel(logging.CRITICAL)
        self.queue = SqliteHuey("bench", filename=str(file), fsync=True)
        self.left = 0
        self.waits: list[float] = []
        self._over = threading.Event()
        self.nothing = self.queue.task()(self._nothing)
        self.arrive = self.queue.task()(self._arrive)

    def fill(self, tasks: int) -> None:
        """Store calls of ``nothing``, without syncing each: this is not measured."""
        self.queue.storage.conn.execute("PRAGMA synchronous = OFF")
        for number in range(tasks):
            self.nothing(number)
        self.queue.storage.conn.execute("PRAGMA synchronous = FULL")
        self.left = tasks

    @contextmanager
    def consuming(self) -> Iterator[None]:
        consumer = self.queue.create_consumer(
            workers=1, periodic=False, initial_delay=POLL, max_delay=POLL, backoff=1.0, check_worker_health=False
        )
        consumer.start()
        try:
            yield
        finally:
            consumer.stop(graceful=True)

    def wait(self) -> None:
        """Return when as many tasks have run as were to be waited for."""
        self._over.wait()

    def settle(self) -> None:
        """Return when nothing is queued."""
        while self.queue.pending_count():
            sleep(POLL)

    def _nothing(self, number: int) -> None:
        self._count()

    def _arrive(self, begun: int) -> None:
        self.waits.append((monotonic_ns() - begun) / 1e6)
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            self._over.set()
