"""Runs commands as operators run them, on a store in which tasks have succeeded, failed and wait."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import pytest

from afterwards import engines
from afterwards.cli.main import run
from afterwards.client.installations import installations
from afterwards.core.process_state import afresh
from afterwards.tasks.registry import registry
from face.processes import ENVIRONMENT, TIMEOUT

CANARY = "canary-7f3a91c2d4"
"""The value of a secret parameter of every failed task: it must be in no output."""

APPLICATION = """
import asyncio
import os
from fastapi import FastAPI
from afterwards import Afterwards, progress, task

app = FastAPI()
tasks = Afterwards(app)
print("the application was imported")

@task
async def note(text: str, count: int = 1) -> str:
    return text * count

@task(queue="mail")
async def send(to: str, password: str) -> None:
    raise ValueError(f"no such address: {to} with {password}")

@task(queue="slow")
async def wait_until_told(text: str) -> None:
    async for _ in progress(forever(), total=10, desc="waiting"):
        if os.path.exists("go"):
            break

async def forever():
    while True:
        yield 1
        await asyncio.sleep(0.05)

@task(every=3600)
async def tidy() -> None: ...
"""

STORE = """
import asyncio
import main

async def store() -> None:
    for text in "ab":
        await main.note.enqueue(text)
    for to in ("ada@example.org", "bob@example.org", "eve@example.org"):
        await main.send.enqueue(to, password="{canary}")

asyncio.run(store())
"""

WAITING = """
import asyncio
import main

async def store() -> None:
    await main.note.enqueue("c")
    await main.note.options(delay=3600).enqueue("d")

asyncio.run(store())
"""


def program(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "afterwards", *arguments],
        cwd=folder,
        env=ENVIRONMENT | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def afterwards(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Done:
    """Run a command to its end in this process, which takes a tenth of the time of one of its own."""
    before = {*sys.modules}
    outputs = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, afresh(registry, installations, engines._engines):
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", ["afterwards", *arguments])
        patch.setattr(sys, "stdin", io.StringIO())
        patch.setattr(sys, "stdout", outputs[0])
        patch.setattr(sys, "stderr", outputs[1])
        for name in {"AFTERWARDS_URL", "COLUMNS"} & os.environ.keys():
            patch.delenv(name)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        code = run()
    for name in {*sys.modules} - before:  # each has an application of its own
        if not name.startswith("afterwards") and _is_below(folder, sys.modules[name]):
            del sys.modules[name]
    return Done(code, outputs[0].getvalue(), outputs[1].getvalue())


def _is_below(folder: Path, module: ModuleType) -> bool:
    return str(getattr(module, "__file__", "")).startswith(str(folder.parent))


def answered(folder: Path, *arguments: str, code: int = 0) -> Any:
    """Return the JSON that a command prints."""
    done = afterwards(folder, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


class Terminal:
    """A command in a terminal of its own: what it shows, and keys to type."""

    def __init__(self, folder: Path, *arguments: str, columns: int = 80, **environment: str) -> None:
        self.shown = ""
        self.code: int | None = None
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background processes ignore it
            os.chdir(folder)
            given = ENVIRONMENT | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24"} | environment
            os.execve(sys.executable, [sys.executable, "-m", "afterwards", *arguments], given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def types(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def shows(self, text: str) -> None:
        """Wait until a text is shown."""
        self._read_until(lambda: text in self.shown)

    def ends(self) -> int:
        """Wait for the end. Returns the exit code."""
        self._read_until(self._has_ended)
        self._read(0)
        assert self.code is not None, self.shown
        return self.code

    def _has_ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def _read_until(self, come_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not come_true():
            assert time.monotonic() < deadline, self.shown
            self._read(0.05)

    def _read(self, wait: float) -> None:
        while select.select([self._terminal], [], [], wait)[0]:
            try:
                found = os.read(self._terminal, 65536)
            except OSError:  # it has ended
                return
            if not found:
                return
            self.shown += found.decode(errors="replace")
