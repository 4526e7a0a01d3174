"""The servers as fixtures: one for each process of tests, started when its first test asks for it."""

from collections.abc import Iterator, Mapping

import pytest

from servers.missing import missing
from servers.postgres import FAST, NotInstalled, PostgresServer


def private_postgres(settings: Mapping[str, str] = FAST) -> PostgresServer:
    """Return a server, not started, that the caller may kill. Skips the test if none is installed."""
    try:
        return PostgresServer(settings)
    except NotInstalled as error:
        missing(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that all tests of this process share: none of them may kill it."""
    with private_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database that no other test uses."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)
