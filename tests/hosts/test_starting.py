"""An application that starts while its database is away for a moment."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from face.processes import Program, uvicorn, write_application
from servers.fixtures import private_postgres
from servers.postgres import PostgresServer

TEXTS = [f"{number}" for number in range(5)]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own, which tests stop and start."""
    with private_postgres() as server:
        yield server


@pytest.fixture
def application(tmp_path: Path) -> Path:
    write_application(tmp_path, "Afterwards(app)")
    return tmp_path


def start(folder: Path, server: PostgresServer, *arguments: str) -> Program:
    return uvicorn(folder, *arguments, AFTERWARDS_URL=server.url())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_waits_for_a_database_that_comes_back(
    application: Path, server: PostgresServer, processes: int
) -> None:
    server.stop()
    with start(application, server, "--workers", f"{processes}") as program:
        for _ in range(processes):
            program.says("the start waits for it")
        server.start()
        for text in TEXTS:
            program.post(f"/note/{text}")
        program.writes(*TEXTS)
        program.stops()


def test_a_signal_ends_the_wait(application: Path, server: PostgresServer) -> None:
    with (application / "main.py").open("a") as main:
        main.write("\nfrom afterwards.web import opening\nopening.PATIENCE = 3600.0\n")
    server.stop()
    with start(application, server) as program:
        program.says("the start waits for it")
        program.stops()


def test_a_wait_in_vain_ends_with_the_reason(application: Path, server: PostgresServer) -> None:
    server.stop()
    with start(application, server) as program:
        assert program.ends(within=30) == 3  # uvicorn's code for a start that failed
        assert "cannot be reached" in program.output


def test_a_password_that_is_refused_is_not_waited_for(application: Path, server: PostgresServer) -> None:
    with uvicorn(application, AFTERWARDS_URL=server.url(password="wrong")) as program:
        assert program.ends(within=30) == 3
        assert "the start waits for it" not in program.output
        assert "refused this user or password" in program.output
