"""The database server is killed while a move goes on, again and again: nothing is lost, and nothing is doubled."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from afterwards.cli.errors import ExitCode
from face.processes import TIMEOUT, Program, eventually, write_application
from move.test_move_command import DESTINATION, SMALL_BATCHES, SOURCE, store, tasks_in
from servers.fixtures import private_postgres
from servers.postgres import CAREFUL, PASSWORD, PostgresServer

KILLS = 4

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that keeps what it has committed, and that only these tests use."""
    with private_postgres(CAREFUL) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application, and tasks in a file."""
    write_application(tmp_path, "from afterwards import chain\ntasks = Afterwards(app)")
    store(tmp_path, 60, chains=8)
    (tmp_path / "small.py").write_text(SMALL_BATCHES)
    return tmp_path


def move_with_kills(folder: Path, server: PostgresServer, source: str, destination: str) -> list[ExitCode]:
    """Move everything, and kill the server in each of the first attempts. Returns how those ended."""
    random, ends = Random(f"{source}"), []
    deadline = monotonic() + 5 * TIMEOUT
    while True:
        assert monotonic() < deadline, ends
        with Program([sys.executable, "small.py", source, destination], folder) as moving:
            if len(ends) == KILLS:
                assert moving.ends(TIMEOUT) == ExitCode.DONE, moving.output
                return ends
            batches = random.randrange(2, 8)  # both stores are open before the second
            eventually(
                lambda moving=moving, batches=batches: (
                    moving.output.count("moving\n") >= batches or moving.process.poll() is not None
                )
            )
            sleep(random.uniform(0, 0.05))  # not to wait, but to hit another place within a batch
            server.kill(signal.SIGKILL)
            ends.append(ExitCode(moving.ends(TIMEOUT)))
            assert "Traceback" not in moving.output and PASSWORD not in moving.output
            if ends[-1] is not ExitCode.DONE:
                assert "Nothing is lost: run the same command again to go on" in moving.output
        server.start()


def test_there_and_back_each_task_arrives_once_as_it_was(folder: Path, server: PostgresServer) -> None:
    url = server.url(server.create_database())
    before = tasks_in(folder / "afterwards.db")
    assert len(before) == 100
    there = move_with_kills(folder, server, SOURCE, url)
    assert tasks_in(folder / "afterwards.db") == []
    assert tasks_in(url) == before
    back = move_with_kills(folder, server, url, DESTINATION)
    assert tasks_in(url) == []
    assert tasks_in(folder / "new.db") == before
    for ends in (there, back):
        assert {*ends} <= {ExitCode.UNREACHABLE, ExitCode.DONE}
        assert ends.count(ExitCode.UNREACHABLE) > 1
