"""How a server ends under gunicorn with uvicorn's worker."""

import os
import signal
import sys
from pathlib import Path

import httpx

from face.processes import TIMEOUT, Program, record, write_application

RELEASED = [(["released"], 0)] * 2


def gunicorn(folder: Path, *arguments: str) -> Program:
    command = [sys.executable, "-m", "gunicorn", "main:app", "--bind", "127.0.0.1:0", "--no-control-socket"]
    return Program([*command, "--worker-class", "uvicorn_worker.UvicornWorker", *arguments], folder)


def test_a_worker_may_end_what_it_runs(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with gunicorn(tmp_path) as server:
        server.post("/wait/task")
        server.writes("task began")
        server.signal(signal.SIGTERM)
        server.says("draining, 1 task has 20 s to end")
        server.says("Waiting for application shutdown")
        (tmp_path / "go").touch()
        server.ends()
    assert server.diary() == ["task began", "task ended"]


def test_workers_give_back_what_takes_longer_when_their_master_is_told_to_end(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, grace=0.2, concurrency=1)")
    with gunicorn(tmp_path, "--workers", "2") as server:
        two_run(server)
        server.stops()
    assert [(task["kinds"], task["failed"]) for task in record(tmp_path, "wait_until_told")] == RELEASED


def test_workers_give_back_what_takes_longer_when_somebody_presses_ctrl_c(tmp_path: Path) -> None:
    """A terminal tells all processes at once. (Told alone, gunicorn sends a signal that uvicorn's worker ignores.)"""
    write_application(tmp_path, "Afterwards(app, grace=0.2, concurrency=1)")
    with gunicorn(tmp_path, "--workers", "2") as server:
        two_run(server)
        os.killpg(server.process.pid, signal.SIGINT)
        server.ends()
    assert [(task["kinds"], task["failed"]) for task in record(tmp_path, "wait_until_told")] == RELEASED


def two_run(server: Program) -> None:
    for text in ("one", "two"):
        server.post(f"/wait/{text}")
    server.writes("one began", "two began")


def test_a_preloaded_application_runs_in_its_workers(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with gunicorn(tmp_path, "--preload", "--workers", "2") as server:
        for text in ("one", "two", "three"):
            server.post(f"/note/{text}")
        server.writes("one", "two", "three")
        server.stops()


def test_a_worker_that_is_replaced_after_so_many_requests_loses_nothing(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with gunicorn(tmp_path, "--max-requests", "4") as server:
        answered = [text for text in map(str, range(24)) if acknowledged(f"{server.url}/note/{text}")]
        server.writes(*answered)
        server.stops()
    assert len(answered) >= 12
    assert [server.diary().count(text) for text in answered] == [1] * len(answered)


def acknowledged(url: str) -> bool:
    """A worker that ends drops the connections that it had not accepted yet."""
    try:
        return httpx.post(url, timeout=TIMEOUT).status_code == 200
    except httpx.TransportError:
        return False
