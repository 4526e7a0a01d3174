"""The processes of an application: a server, and where the store allows it a worker on another host."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from chaos.celery_fleet import CeleryWorker
from chaos.server import POLL, Program, Server, Worker


class Hosts:
    """All processes of an application, each started again when it has ended, as systemd does."""

    def __init__(
        self,
        app: str,
        *,
        folder: Path,
        workers: int,
        worker_only: bool,
        environment: Mapping[str, str],
        fleet: int = 0,
    ) -> None:
        self._server = Server(app, folder=folder, workers=workers, environment=environment)
        self._workers = workers
        self._worker = Worker(app, folder=folder, environment=environment) if worker_only else None
        self._fleet = [CeleryWorker(app, folder=folder, environment=environment) for _ in range(fleet)]

    @property
    def port(self) -> int:
        return self._server.port

    def __enter__(self) -> Self:
        for program in self._programs:
            program.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for program in self._programs:
            program.__exit__(kind, error, traceback)

    def kill_one(self, random: Random) -> None:
        """Kill the worker, the server with all its processes, or one of these, which uvicorn starts again.

        Of an application with a fleet, mostly one of the fleet's.
        """
        if self._fleet and random.random() < 0.85:
            random.choice(self._fleet).kill_one(random)
            self.revive()
            return
        children = self._server.workers()
        if self._worker and random.random() < 0.4:
            self._worker.kill()
        elif children and random.random() < 0.6:
            os.kill(random.choice(children), signal.SIGKILL)
        else:
            self._server.kill()
        self.revive()

    def serving(self) -> set[int]:
        """The processes that serve and run tasks, started or starting. Empty while the server is being started."""
        if self._fleet:
            return {pid for worker in self._fleet if worker.running for pid in worker.children()}
        if not self._server.running:
            return set()
        return {self._server.pid} if self._workers == 1 else set(self._server.workers())

    def revive(self) -> None:
        """Start again what has ended."""
        for program in self._programs:
            if not program.running:
                program.start()

    def look_after(self, seconds: float) -> None:
        """Let time pass, and start again what ends meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.revive()
            time.sleep(min(POLL, left))

    def end_serving(self) -> None:
        """Stop the server as a deploy does, where there is a worker beside it that can do the rest alone."""
        if self._worker:
            self._server.stop()

    def stop(self) -> None:
        for program in self._programs:
            program.stop()

    def log(self) -> str:
        return "".join(program.log() for program in self._programs)

    @property
    def _programs(self) -> list[Program]:
        return [self._server, *([self._worker] if self._worker else []), *self._fleet]
