"""A fleet of processes whose broker is a folder: a file is a message. It knows nothing of Celery.

An application's processes send with ``Spool``. ``python -m dispatch.spool QUEUE... `` is a process of the fleet.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from itertools import count
from pathlib import Path
from time import time_ns

from afterwards.core.task import Lease
from afterwards.dispatch.fleet import NotSent, Serve
from afterwards.engine import Dispatch

POLL = 0.01


class Spool:
    """Writes dispatches into a folder. With a file ``away`` in it, it accepts none; with ``loses``, it loses them."""

    def __init__(self, *, again_after: float = 600, ahead: int = 100, folder: str = "spool") -> None:
        self.again_after = timedelta(seconds=again_after)
        self.ahead = ahead
        self.folder = Path(folder).absolute()
        self.serve: Serve | None = None
        self._numbers = count()

    def attach(self, serve: Serve) -> None:
        self.serve = serve

    async def send(self, dispatches: Sequence[Dispatch]) -> None:
        for at, one in enumerate(dispatches):
            if (self.folder / "away").exists():
                raise NotSent(dispatches[at:], "the folder is away")
            with (self.folder.parent / "sent.txt").open("a") as sent:
                sent.write(f"{one.lease.task_id} {one.lease.attempt} {one.queue} {one.priority} {os.getpid()}\n")
            if not (self.folder / "loses").exists():
                self.put(one.lease, one.queue)

    def put(self, lease: Lease, queue: str) -> None:
        """Write a message."""
        (self.folder / queue).mkdir(parents=True, exist_ok=True)
        name = f"{time_ns()}-{os.getpid()}-{next(self._numbers):09}"
        unfinished = self.folder / f"{name}.tmp"
        unfinished.write_text(f"{lease.task_id} {lease.attempt}")
        unfinished.rename(self.folder / queue / name)

    def take(self, queues: frozenset[str] | None) -> Lease | None:
        """Take the oldest message of the queues; only one process gets it."""
        served = [one for one in self.folder.glob("*/") if queues is None or one.name in queues]
        for message in sorted((one for queue in served for one in queue.iterdir()), key=lambda one: one.name):
            taken = self.folder / f"{message.name}.{os.getpid()}"
            with suppress(FileNotFoundError):
                message.rename(taken)
                id, attempt = taken.read_text().split()
                taken.unlink()
                return Lease(id, int(attempt))
        return None


class Process:
    """A process of the fleet: its main thread handles signals, and another one runs the application's tasks."""

    def __init__(self, spool: Spool, queues: frozenset[str] | None, slots: int) -> None:
        assert spool.serve is not None
        self._serve = spool.serve
        self._spool = spool
        self._queues = queues
        self._slots = slots
        self._told = threading.Event()
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        thread = threading.Thread(target=self._run)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._drain)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)

    def _drain(self, number: int, frame: object) -> None:
        self._told.set()
        self._loop.call_soon_threadsafe(lambda: self._worker.drain())

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        running: set[asyncio.Task[bool]] = set()
        async with self._serve(queues=self._queues, slots=self._slots) as self._worker:
            print("the fleet's process has started", flush=True)
            while not self._told.is_set():
                lease = self._spool.take(self._queues) if len(running) < self._slots else None
                if lease is None:
                    await asyncio.sleep(POLL)
                    continue
                begun = asyncio.create_task(self._worker.run(lease))
                running.add(begun)
                begun.add_done_callback(running.discard)
                begun.add_done_callback(lambda done: print(f"run returned {done.result()}", flush=True))
            await asyncio.gather(*running)
        print("the fleet's process has ended", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queues", nargs="*")
    parser.add_argument("--slots", type=int, default=1)
    given = parser.parse_args()
    sys.path.insert(0, "")
    Process(import_module("main").spool, frozenset(given.queues) or None, given.slots).run()
