"""A server of the tests' own in a temporary folder. It ends with the process that started it, however that ends."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

TIMEOUT = 60.0  # seconds that a start or an end may take on a busy machine
POLL = 0.05

UNDERTAKER = """cat >/dev/null; for group in $(cat "$1/groups" 2>/dev/null); do kill -9 "-$group" 2>/dev/null; done
cd / && rm -rf "$1" 2>/dev/null"""
"""Waits for the end of its input, which ends with the process of the tests, and kills what was started."""


class NotInstalled(Exception):
    """The server's program is not installed here."""


class ServerProcess:
    """A server whose port stays the same over restarts, and that tests may kill."""

    name: str

    @property
    def url(self) -> str:
        raise NotImplementedError

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"afterwards-{self.name}-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._spawned: list[subprocess.Popen[bytes]] = []
        self._undertaker = subprocess.Popen(
            ["sh", "-c", UNDERTAKER, "sh", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, and return when it answers. Raises RuntimeError with what it said."""
        deadline = time.monotonic() + TIMEOUT
        self._spawn()
        while not self.answers():
            if not self.running:
                raise RuntimeError(f"{self.name} did not start:\n{self.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not answer:\n{self.log()[-4000:]}")
            time.sleep(POLL)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server with this signal, and return when it has ended. SIGKILL ends all its processes."""
        if self.running:
            assert self._process
            if number is signal.SIGKILL:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
            self._process.wait(TIMEOUT)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with this signal, and start it again."""
        self.kill(number)
        self.start()

    def close(self) -> None:
        """End the server and remove its folder."""
        assert self._undertaker.stdin
        self._undertaker.stdin.close()
        self._undertaker.wait(TIMEOUT)
        for process in self._spawned:
            process.wait(TIMEOUT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {}

    def answers(self) -> bool:
        raise NotImplementedError

    def _spawn(self) -> None:
        self._process = self.spawn(self.command())

    def spawn(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a process that ends with this server."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group that is killed as a whole
            )
        with (self.folder / "groups").open("a") as groups:
            groups.write(f"{process.pid}\n")
        self._spawned.append(process)
        return process


def program(name: str, package: str, *folders: str) -> str:
    """Return the path of a program. Raises NotInstalled."""
    path = os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise NotInstalled(f"{name} is not installed (Debian: apt-get install {package})")
    return found
