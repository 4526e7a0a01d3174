"""Servers that run an application on another event loop than asyncio's."""

import sys
from pathlib import Path

import httpx
import pytest

from face.processes import TIMEOUT, Program, write_application

REFUSAL = "NotAsyncio: Afterwards needs asyncio, and Trio or another event loop runs here"


def hypercorn(folder: Path, worker: str) -> Program:
    return Program([sys.executable, "-m", "hypercorn", "main:app", "--bind", "127.0.0.1:0", "-k", worker], folder)


def url(server: Program) -> str:
    return "http://" + server.says(r"Running on http://(127\.0\.0\.1:\d+)")[1]


def test_hypercorn_with_trio_is_refused_by_name(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with hypercorn(tmp_path, "trio") as server:
        server.says(REFUSAL)
        server.says("--worker-class asyncio")


@pytest.mark.parametrize("worker", ["asyncio", "uvloop"])
def test_hypercorn_with_asyncio_runs_tasks(tmp_path: Path, worker: str) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with hypercorn(tmp_path, worker) as server:
        assert httpx.post(f"{url(server)}/note/hello", timeout=TIMEOUT).status_code == 200
        server.writes("hello")
        server.stops()
