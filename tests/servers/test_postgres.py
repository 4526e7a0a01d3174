"""The PostgreSQL server of the tests: it comes back with what was committed, and ends with its process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chaos.server import TESTS, wait_until
from servers.fixtures import private_postgres
from servers.postgres import CAREFUL, PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with private_postgres(CAREFUL) as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_what_was_committed_is_there_after_a_restart(server: PostgresServer, number: signal.Signals) -> None:
    name = server.create_database()
    with server.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.kill(number)
        assert not server.running
        wait_until(lambda: not _answers(connection), "the connection to end")
    server.start()
    with server.connect(name) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_each_test_has_an_empty_database(postgres: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    assert postgres_url != postgres.url(postgres.create_database())


def test_a_standby_has_the_rows_and_takes_none(server: PostgresServer) -> None:
    name = server.create_database()
    with server.connect(name) as connection:
        connection.execute("CREATE TABLE followed AS SELECT 7 AS number")
    with server.standby() as standby, standby.connect(name) as connection:
        assert connection.execute("SELECT number FROM followed").fetchone() == (7,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO followed VALUES (8)")


OWNER = """
import sys
from servers.postgres import PostgresServer
with PostgresServer() as server:
    print(server.pid, server.folder, flush=True)
    sys.stdin.read()
"""


def test_it_ends_with_its_process_even_if_that_is_killed(server: PostgresServer) -> None:
    del server  # which has shown that one is installed
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        pid, folder = owner.stdout.readline().split()
        assert _lives(int(pid))
        owner.kill()
        wait_until(lambda: not Path(folder).exists() and not _lives(int(pid)), "the server to end")


def _answers(connection: psycopg.Connection[Any]) -> bool:
    try:
        return bool(connection.execute("SELECT 1"))
    except psycopg.OperationalError:
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/cmdline").read_bytes() != b"" if Path("/proc/self").exists() else True
