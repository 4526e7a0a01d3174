"""The engine in a PostgreSQL database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count

import psycopg
import pytest

from afterwards.engine import Engine
from afterwards.engines.postgres import PostgresEngine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance import EngineConformance, ReopeningConformance, TransactionConformance
from afterwards.testing.conformance.generated import GeneratedConformance
from afterwards.testing.conformance.joining import Begin, DriverTransaction
from afterwards.testing.conformance.reopening import Open
from servers.postgres import PostgresServer

pytestmark = pytest.mark.xdist_group("postgres")

_numbers = count(1)


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a schema of its own, which is made when it is opened."""
    schema = f"test_{next(_numbers)}"
    yield postgres.url(schema=schema)


class TestPostgresEngine(EngineConformance):
    @pytest.fixture
    async def engine(self, clock: FakeClock, url: str) -> AsyncIterator[Engine]:
        async with PostgresEngine(url, clock=clock) as engine:
            yield engine


class TestPostgresReopened(ReopeningConformance):
    @pytest.fixture
    def open(self, clock: FakeClock, url: str) -> Open:
        return lambda: PostgresEngine(url, clock=clock)


class TestPostgresTransactions(TransactionConformance):
    @pytest.fixture
    async def engine(self, clock: FakeClock, url: str) -> AsyncIterator[Engine]:
        async with PostgresEngine(url, clock=clock) as engine:
            yield engine

    @pytest.fixture
    def begin(self, postgres: PostgresServer) -> Begin:
        @contextmanager
        def begin() -> Iterator[DriverTransaction]:
            with closing(psycopg.connect(postgres.url())) as connection:
                yield DriverTransaction("postgresql", connection)

        return begin


class TestPostgresGenerated(GeneratedConformance):
    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer) -> None:
        self.postgres = postgres

    @asynccontextmanager
    async def open(self, clock: FakeClock) -> AsyncIterator[Engine]:
        schema = f"test_{next(_numbers)}"
        async with PostgresEngine(self.postgres.url(schema=schema), clock=clock) as engine:
            yield engine
        with self.postgres.connect() as connection:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
