"""Sees whether an application still does its work: requests are acknowledged, and their tasks begin."""

import time
from pathlib import Path

from chaos.history import Tail, What
from chaos.hosts import Hosts
from chaos.load import Load
from chaos.server import POLL

LONGEST_START = 10.0  # seconds that the start of a process is given
TIMEOUT = 120.0  # seconds after which work does not go on any more


class Pulse:
    def __init__(self, load: Load, folder: Path, hosts: Hosts) -> None:
        self._load = load
        self._tail = Tail(folder)
        self._hosts = hosts
        self._pids: set[int] = set()  # of processes that have begun a task

    def answers(self) -> None:
        """Return when a request is acknowledged from now on."""
        enough = self._load.acknowledged + 1
        deadline = time.monotonic() + TIMEOUT
        while self._load.acknowledged < enough:
            self._wait(deadline, "a request to be acknowledged")

    def all_serve(self) -> None:
        """Return when each process of the server has begun a task, and so has started.

        After a while, return anyway: a process that has started may get no request and no task.
        """
        enough = time.monotonic() + LONGEST_START
        while time.monotonic() < enough:
            self._pids |= {one.pid for one in self._tail.read()}
            if (serving := self._hosts.serving()) and serving <= self._pids:
                return
            self._hosts.revive()
            time.sleep(POLL)

    def promised(self, most: int) -> list[str]:
        """Return the ids of tasks that were promised last."""
        sent = self._load.sent[-most:]
        return [id for one in sent for id in one.ids or ()][-most:]

    def goes_on(self, since: int | None = None) -> float:
        """Return the seconds until a request sent since then is acknowledged and a task of it has begun.

        Instants are those of the histories' clock. Raises TimeoutError.
        """
        since = time.monotonic_ns() if since is None else since
        deadline = time.monotonic() + TIMEOUT
        begun: set[str] = set()
        while True:
            effects = self._tail.read()
            self._pids |= {one.pid for one in effects}
            begun |= {one.task for one in effects if one.what is What.START}
            if any(not begun.isdisjoint(sent.ids or ()) for sent in self._load.sent_since(since)):
                return (time.monotonic_ns() - since) / 1e9
            self._wait(deadline, "a task of a new request to begin")

    def _wait(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {TIMEOUT:.0f} s for {what}")
        self._hosts.revive()
        time.sleep(POLL)
