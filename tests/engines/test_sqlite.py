"""The engine in an SQLite file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from afterwards.engine import Engine
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance import EngineConformance, TransactionConformance
from afterwards.testing.conformance.generated import GeneratedConformance
from afterwards.testing.conformance.joining import Begin, sqlite_transaction


class TestSQLiteEngine(EngineConformance):
    @pytest.fixture
    async def engine(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Engine]:
        async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
            yield engine


class TestSQLiteTransactions(TransactionConformance):
    @pytest.fixture
    async def engine(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Engine]:
        async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
            yield engine

    @pytest.fixture
    def begin(self, tmp_path: Path) -> Begin:
        return partial(sqlite_transaction, tmp_path / "tasks.db")


class TestSQLiteEngineGenerated(GeneratedConformance):
    @asynccontextmanager
    async def open(self, clock: FakeClock) -> AsyncIterator[Engine]:
        with TemporaryDirectory() as folder:
            async with SQLiteEngine(Path(folder) / "tasks.db", clock=clock) as engine:
                yield engine
