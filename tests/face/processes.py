"""Runs programs and servers in processes of their own."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine

T = TypeVar("T")

WARNINGS = ["-W", "error", "-W", "ignore:The anyio.abc.BlockingPortal alias:DeprecationWarning"]
"""As in pyproject.toml: the second is for the Starlette of the oldest FastAPI."""

TIMEOUT = 60.0
"""Seconds that anything may take which a test waits for."""

ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith(("AFTERWARDS", "FASTAPI"))}
"""Without what would change how an application behaves."""


def run(source: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    program = folder / "program.py"
    program.write_text(dedent(source))
    return subprocess.run(
        [sys.executable, *WARNINGS, program.name],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def output(source: str, folder: Path, **environment: str) -> str:
    """What a program prints; it must end well."""
    ran = run(source, folder, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class Program:
    """A program that runs until it is told to end; its output goes to a file."""

    def __init__(self, command: Sequence[str], folder: Path, **environment: str) -> None:
        self.folder = folder
        self._lifespan = "off" not in command
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with its children
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def url(self) -> str:
        """Where it serves. Waits until it does."""
        self.says("Application startup complete" if self._lifespan else "Uvicorn running on")
        return self.says(r"(?:Uvicorn running on|Listening at:) (http://[\d.]+:\d+)")[1]

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line of its output."""
        return eventually(lambda: re.search(pattern, self.output) or self._must_run())

    def diary(self) -> list[str]:
        """What the application has written down."""
        file = self.folder / "diary.txt"
        return file.read_text().splitlines() if file.exists() else []

    def writes(self, *lines: str) -> None:
        """Wait until the application has written these lines down, whatever else it has."""
        try:
            eventually(lambda: set(lines) <= set(self.diary()))
        except AssertionError:
            raise AssertionError(f"{lines} are not all in {self.diary()}; it said:\n{self.output}") from None

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=TIMEOUT)

    def post(self, path: str) -> httpx.Response:
        """Ask for something that must go well."""
        response = httpx.post(self.url + path, timeout=TIMEOUT)
        assert response.status_code == 200, response.text
        return response

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stops(self) -> None:
        """Tell it to end, and wait until it has."""
        self.signal(signal.SIGTERM)
        self.ends()

    def ends(self, within: float = 20) -> int:
        """Wait for its end, and give its exit status."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended within {within} s; it said:\n{self.output}") from None

    def _must_run(self) -> None:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output}"


def uvicorn(folder: Path, *arguments: str, app: str = "main:app", **environment: str) -> Program:
    return Program([sys.executable, "-m", "uvicorn", app, "--port", "0", *arguments], folder, **environment)


def eventually(condition: Callable[[], T]) -> T:
    """What the condition gives, once that is true."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
    return found


APPLICATION = """
import asyncio, os, time
from fastapi import FastAPI
from afterwards import Afterwards, BackgroundTasks, task

def write(line: str) -> None:
    with open("diary.txt", "a") as diary:
        diary.write(line + "\\n")

@task
async def note(text: str) -> None:
    write(text)

@task
async def wait_until_told(text: str) -> None:
    write(f"{text} began")
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    write(f"{text} ended")

@task
def wait_in_thread_until_told(text: str) -> None:
    write(f"{text} began")
    while not os.path.exists("go"):
        time.sleep(0.01)
    write(f"{text} ended")

app = FastAPI()

@app.post("/note/{text}")
async def add_note(text: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(note, text)

@app.post("/wait/{text}")
async def add_wait(text: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(wait_until_told, text)

@app.post("/wait_in_thread/{text}")
async def add_wait_in_thread(text: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(wait_in_thread_until_told, text)
"""
"""An application without its installation."""


def write_application(folder: Path, *lines: str) -> None:
    """Write ``main.py``: the application, and these lines at its end."""
    # Python takes compiled code for current when the source has the same second and size.
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "main.py").write_text("\n".join([APPLICATION, *(dedent(line) for line in lines)]))


def record(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the tasks with this name have come to, oldest first, as another process sees them."""
    return asyncio.run(_record(folder / "afterwards.db", name))


async def _record(file: Path, name: str) -> list[dict[str, Any]]:
    async with SQLiteEngine(file) as engine:
        tasks = await engine.find(Query(names=frozenset({name})))
    return [
        {
            "state": task.state,
            "attempt": task.attempt,
            "failed": task.failed,
            "crashed": task.crashed,
            "kinds": [failure.kind for failure in task.failures],
        }
        for task in reversed(tasks)
    ]
