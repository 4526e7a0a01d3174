"""Commands whose store refuses them, or is away: the exit code tells the two apart."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from afterwards.cli.errors import ExitCode
from afterwards.engines.sqlite import SQLiteEngine
from cli.commands import afterwards
from cli.test_worker_command import ask, children
from face.processes import TIMEOUT, Program, eventually, write_application
from servers.postgres import PostgresServer, free_port

pytestmark = pytest.mark.xdist_group("postgres_sessions")

COMMANDS = [
    ("list",),
    ("show", "1"),
    ("cancel", "--state", "queued", "--yes"),
    ("tail",),
    ("stats",),
    ("queues",),
    ("workers",),
    ("schedules",),
    ("pause", "--queue", "mail"),
    ("prune",),
    ("doctor",),
    ("check",),
    ("enqueue", "note", "--args", '["a"]'),
    ("backup", "copy.db"),
    ("migrate",),
    ("migrate", "--check"),
]


@pytest.fixture
def application(tmp_path: Path) -> Path:
    write_application(tmp_path, "Afterwards(app)")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_refusal_has_the_exit_code_of_a_store_that_is_not_reachable(
    application: Path, postgres: PostgresServer, command: tuple[str, ...]
) -> None:
    for url, reason in (
        (postgres.url(password="wrong"), "refused this user or password"),
        (postgres.url("nowhere"), "there is no such database"),
    ):
        done = afterwards(application, *command, environment={"AFTERWARDS_URL": url})
        assert done.returncode == ExitCode.UNREACHABLE, done.stderr
        assert reason in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_store_that_is_away_has_the_same_exit_code(application: Path, command: tuple[str, ...]) -> None:
    url = f"postgresql://ada:s3cret@127.0.0.1:{free_port()}/tasks"
    done = afterwards(application, *command, environment={"AFTERWARDS_URL": url})
    assert done.returncode == ExitCode.UNREACHABLE, done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_worker_that_is_refused_ends(application: Path, postgres: PostgresServer, processes: list[str]) -> None:
    command = [sys.executable, "-m", "afterwards", "worker", *processes]
    with Program(command, application, AFTERWARDS_URL=postgres.url(password="wrong")) as working:
        assert working.ends(TIMEOUT) == ExitCode.UNREACHABLE
        assert working.output.count("refused this user or password") == (2 if processes else 1)
        assert "a new one starts" not in working.output


@pytest.mark.parametrize("refused", ["source", "destination"])
def test_a_move_is_refused_by_either_store(application: Path, postgres: PostgresServer, refused: str) -> None:
    asyncio.run(make(application / "tasks.db"))
    urls = ["sqlite:///tasks.db", postgres.url(password="wrong")]
    done = afterwards(application, "move", *(urls[::-1] if refused == "source" else urls), "--yes")
    assert done.returncode == ExitCode.UNREACHABLE, done.stderr


def test_a_store_that_has_let_processes_in_may_do_so_again(
    application: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    database, port = postgres_url.rpartition("/")[2], free_port()
    url = postgres.url(database, user="guest", password="good")
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN SUPERUSER PASSWORD 'good'")
        with supervised(application, "--health-port", str(port), url=url) as working:
            eventually(lambda: ask(port, "/ready").status_code == 200)
            connection.execute("ALTER ROLE guest PASSWORD 'changed'")
            first, _ = children(working.process.pid)
            os.kill(first, signal.SIGKILL)
            working.says("ended with exit code 4; a new one starts")
            connection.execute("ALTER ROLE guest PASSWORD 'good'")
            eventually(lambda: working.output.count("worker here") == 3)
            eventually(lambda: ask(port, "/ready").status_code == 200)
            working.stops()
        connection.execute("DROP OWNED BY guest")
        connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
        connection.execute("DROP ROLE guest")


def supervised(folder: Path, *arguments: str, url: str) -> Program:
    command = [sys.executable, "-m", "afterwards", "worker", "--processes", "2", *arguments]
    return Program(command, folder, AFTERWARDS_URL=url)


async def make(file: Path) -> None:
    async with SQLiteEngine(file):
        pass
