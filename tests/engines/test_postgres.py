"""The engine in a PostgreSQL database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

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

SCHEMA = "emptied"

EMPTY = f"""
    DO $$
    DECLARE
        name text;
    BEGIN
        SET LOCAL session_replication_role = replica;  -- without triggers, also those of foreign keys
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA}' AND tablename <> 'afterwards_schema'
        LOOP
            EXECUTE format('DELETE FROM {SCHEMA}.%I', name);
        END LOOP;
    END
    $$
"""


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """The URL of empty tables, which the first test makes: to make them takes ten times as long as to empty them."""
    return emptied(postgres)


def emptied(postgres: PostgresServer) -> str:
    with postgres.connect() as connection:
        connection.execute(EMPTY)
    return postgres.url(schema=SCHEMA)


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
        async with PostgresEngine(emptied(self.postgres), clock=clock) as engine:
            yield engine
