"""A SQLite file that is opened again, or twice, has all that was stored."""

from pathlib import Path

import pytest

from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance import ReopeningConformance
from afterwards.testing.conformance.reopening import Open


class TestSQLiteReopened(ReopeningConformance):
    @pytest.fixture
    def open(self, clock: FakeClock, tmp_path: Path) -> Open:
        return lambda: SQLiteEngine(tmp_path / "tasks.db", clock=clock)
