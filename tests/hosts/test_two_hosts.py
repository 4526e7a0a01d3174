"""The same application on two hosts: one serves HTTP and runs no task, the other one only works."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from face.processes import Program, write_application
from hosts.namespaces import Host, two_hosts
from servers.fixtures import private_postgres
from servers.postgres import PostgresServer

TEXTS = [f"{number}" for number in range(20)]


@dataclass(frozen=True)
class Two:
    """Two hosts, with a folder each, and a server that both reach."""

    server: PostgresServer
    serving: Host
    working: Host
    folder: Path

    def url_for(self, host: Host) -> str:
        return self.server.url().replace("127.0.0.1", host.gateway)

    def serve(self, **environment: str) -> Program:
        command = ["uvicorn", "main:app", "--host", self.serving.address, "--port", "0"]
        return self._run(self.serving, "serving", command, **environment)

    def work(self) -> Program:
        return self._run(self.working, "working", ["afterwards", "worker", "main:app"])

    def _run(self, host: Host, name: str, command: list[str], **environment: str) -> Program:
        return Program(
            [*host.prefix, sys.executable, "-m", *command],
            self.folder / name,
            **{"AFTERWARDS_URL": self.url_for(host)} | environment,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with private_postgres() as server:
        server.allow_everywhere()
        yield server


@contextmanager
def hosts() -> Iterator[tuple[Host, Host]]:
    """Network namespaces; where the machine does not allow them, this host twice."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(two_hosts())
        except OSError:
            here = Host((), "127.0.0.1", "127.0.0.1")
            yield here, here


@pytest.fixture
def two(server: PostgresServer, tmp_path: Path) -> Iterator[Two]:
    with hosts() as (serving, working):
        yield Two(server, serving, working, tmp_path)


@pytest.mark.parametrize(
    ("installation", "environment"),
    [("Afterwards(app)", {"AFTERWARDS_WORKER": "off"}), ("Afterwards(app, worker=False)", {})],
    ids=["AFTERWARDS_WORKER=off", "worker=False"],
)
def test_one_host_serves_and_the_other_one_works(two: Two, installation: str, environment: dict[str, str]) -> None:
    for name in ("serving", "working"):
        (two.folder / name).mkdir()
        write_application(two.folder / name, installation)
    with two.serve(**environment) as server:
        for text in TEXTS:
            server.post(f"/note/{text}")
        with two.work() as worker:
            worker.writes(*TEXTS)
            server.post("/note/last")
            worker.writes("last")
            if two.serving != two.working:
                assert clients(two.server) == {two.serving.address, two.working.address}
            worker.stops()
        server.stops()
        assert sorted(worker.diary()) == sorted([*TEXTS, "last"])
        assert server.diary() == []


def clients(server: PostgresServer) -> set[str]:
    """The addresses from which the database is used."""
    with server.connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE client_addr IS NOT NULL"
        )
        return {address for (address,) in rows} - {"127.0.0.1"}
