"""A signal to a group reaches a server's child twice, from the group and from its parent: it is one request."""

import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from face.processes import Program, eventually, record, uvicorn, write_application
from shutdown.test_gunicorn import gunicorn

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])

SUCCEEDED = {"state": "succeeded", "attempt": 1, "failed": 0, "crashed": 0, "kinds": []}

NOTING = """
import signal
from contextlib import asynccontextmanager

@asynccontextmanager
async def noting(app):
    for number in (signal.SIGTERM, signal.SIGINT):
        note_and_pass_on(number, signal.getsignal(number))
    yield

def note_and_pass_on(number, server) -> None:
    def hear(number, frame) -> None:
        write(f"heard by {os.getpid()}")
        server(number, frame)
    signal.signal(number, hear)

app.router.lifespan_context = noting
"""
"""Writes down each signal that the server hears, after the worker."""


class Hypercorn(Program):
    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "hypercorn", "main:app", "--bind", "127.0.0.1:0", *arguments]
        super().__init__(command, folder)

    @property
    def url(self) -> str:
        return self.says(r"Running on (http://[\d.]+:\d+)")[1]


@SIGNALS
def test_one_signal_to_uvicorn_and_its_workers_leaves_the_grace_period(tmp_path: Path, number: int) -> None:
    write_application(tmp_path, NOTING, "Afterwards(app, grace=60)")
    with uvicorn(tmp_path, "--workers", "2") as server:
        eventually(lambda: server.output.count("Application startup complete") == 2)
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, number)
        server.says("Terminated child process")
        if number == signal.SIGINT:  # two SIGTERM at the same instant may be one
            hears_twice(server)
        (tmp_path / "go").touch()
        server.ends()
    assert record(tmp_path, "wait_until_told") == [SUCCEEDED]


def test_one_ctrl_c_to_a_reloading_uvicorn_leaves_the_grace_period(tmp_path: Path) -> None:
    write_application(tmp_path, NOTING, "Afterwards(app, grace=60)")
    with uvicorn(tmp_path, "--reload") as server:
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, signal.SIGINT)
        hears_twice(server)
        (tmp_path / "go").touch()
        server.ends()
    assert record(tmp_path, "wait_until_told") == [SUCCEEDED]


def test_one_signal_to_gunicorn_and_its_workers_leaves_the_grace_period(tmp_path: Path) -> None:
    """Its master is so quick that its signal may be one with that of the group."""
    write_application(tmp_path, "Afterwards(app, grace=60)")
    with gunicorn(tmp_path, "--graceful-timeout", "60") as server:
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, signal.SIGTERM)
        server.says("Waiting for application shutdown")
        (tmp_path / "go").touch()
        server.ends()
    assert record(tmp_path, "wait_until_told") == [SUCCEEDED]


def hears_twice(server: Program) -> None:
    """Wait until one process has heard two signals. One that runs nothing may have ended before."""
    eventually(lambda: any(server.diary().count(line) == 2 for line in server.diary() if line.startswith("heard")))


@SIGNALS
def test_one_signal_to_a_group_without_a_lifespan_leaves_the_grace_period(tmp_path: Path, number: int) -> None:
    write_application(tmp_path, "Afterwards(app, grace=60)")
    with uvicorn(tmp_path, "--workers", "2", "--lifespan", "off") as server:
        eventually(lambda: listens(server))
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, number)
        server.says("Terminated child process")
        server.says("draining, 1 task has 60 s to end")
        (tmp_path / "go").touch()
        server.ends()
    assert record(tmp_path, "wait_until_told") == [SUCCEEDED]


def listens(server: Program) -> bool:
    """Return whether one of its processes serves already: without a lifespan they do not say so."""
    try:
        return server.get("/openapi.json").is_success
    except httpx.ConnectError:
        return False


def test_a_second_ctrl_c_to_a_group_ends_the_grace_period(tmp_path: Path) -> None:
    write_application(tmp_path, NOTING, "Afterwards(app, grace=600)")
    with uvicorn(tmp_path, "--workers", "2") as server:
        eventually(lambda: server.output.count("Application startup complete") == 2)
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, signal.SIGINT)
        hears_twice(server)
        os.killpg(server.process.pid, signal.SIGINT)
        server.ends()
    assert record(tmp_path, "wait_until_told")[0]["kinds"] == ["released"]


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one", "two"])
@SIGNALS
def test_one_signal_to_hypercorn_and_its_workers_leaves_the_grace_period(
    tmp_path: Path, number: int, arguments: list[str]
) -> None:
    """Its workers leave SIGTERM to the system, which would kill them at once."""
    write_application(tmp_path, "Afterwards(app, grace=60)")
    with Hypercorn(tmp_path, *arguments) as server:
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, number)
        server.says("draining, 1 task has 60 s to end")
        (tmp_path / "go").touch()
        server.ends()
    assert record(tmp_path, "wait_until_told") == [SUCCEEDED]


def test_a_worker_of_hypercorn_that_is_told_to_end_alone_gives_back_what_runs(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        Afterwards(app, grace=0.2)

        @app.get("/pid")
        async def pid() -> int:
            return os.getpid()
        """,
    )
    with Hypercorn(tmp_path) as server:
        server.post("/wait/task")
        server.writes("task began")
        os.kill(server.get("/pid").json(), signal.SIGTERM)
        server.ends()
    assert not re.search("Traceback", server.output)
    assert record(tmp_path, "wait_until_told")[0]["kinds"] == ["released"]
