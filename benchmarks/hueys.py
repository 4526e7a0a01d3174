"""The peer Huey: a SQLite queue with our durability (WAL, ``synchronous=FULL``), polled every 10 ms."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns, sleep

from huey import SqliteHuey  # type: ignore[import-untyped]  # it has none

POLL = 0.01


class Hueys:
    """A queue with two tasks: one does nothing, the other records its latency."""

    def __init__(self, file: Path) -> None:
        logging.getLogger("huey").setLevel(logging.CRITICAL)
        self.queue = SqliteHuey("bench", filename=str(file), fsync=True)
        self.left = 0
        self.waits: list[float] = []
        self._over = threading.Event()
        self.nothing = self.queue.task()(self._nothing)
        self.arrive = self.queue.task()(self._arrive)

    def fill(self, tasks: int) -> None:
        """Store calls of ``nothing`` without a sync for each. This is not measured."""
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
        """Wait until the expected number of tasks has run."""
        self._over.wait()

    def settle(self) -> None:
        """Wait until the queue is empty."""
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
