"""A statement that changes a piece of the rows changes no more than that, whatever plan PostgreSQL takes."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_calls import tables

from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.connections import SETTINGS
from afterwards.engines.postgres.operations import files, handing_over, pruning, tallying, timing
from servers.postgres import PostgresServer

pytestmark = pytest.mark.xdist_group("postgres_plans")

FILE = "018f22e2-79b0-7000-8000-000000000000"

FILL = f"""
    INSERT INTO afterwards_tasks (id, name, arguments, created_at, state, queue, priority, finished_at, retention)
    SELECT gen_random_uuid(), 'greet', '{{}}', n, 'succeeded', 'default', 0, n, 0 FROM generate_series(1, 5) AS n;
    INSERT INTO afterwards_tasks (id, name, arguments, created_at, state, queue, priority, run_at, retention)
    SELECT gen_random_uuid(), 'greet', '{{}}', n, 'scheduled', 'default', 0, n, 0 FROM generate_series(1, 5) AS n;
    INSERT INTO afterwards_tallies (minute, process, succeeded, failed, retried)
    SELECT n, 1, 1, 0, 0 FROM generate_series(1, 5) AS n;
    INSERT INTO afterwards_starts (name, limit_key, at, until) SELECT 'greet', '', n, 9 FROM generate_series(1, 5) AS n;
    INSERT INTO afterwards_files (id, task, until) VALUES ('{FILE}', '{FILE}', NULL);
    INSERT INTO afterwards_chunks (file, number, content) SELECT '{FILE}', n, '' FROM generate_series(1, 5) AS n;
"""

PIECES: list[tuple[str, tuple[Any, ...]]] = [
    (pruning.DELETE_TASKS, (100, 2)),
    (timing.PROMOTE, (100, 2)),
    (tallying.MERGE, (100, 2)),
    (tallying.TAKE_TALLIES, (100, 2)),
    (handing_over.TAKE_STARTS, (0, 100, 100, 2)),
    (files.DELETE_CHUNKS, ([FILE], 2)),
]

LOOKING_AGAIN = SETTINGS | dict.fromkeys(("enable_hashagg", "enable_sort", "enable_material"), "off")
"""Settings with which a subquery is looked into for each row, as statistics may have it at any time."""


@pytest.fixture(scope="module")
def connection(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """Small tables, whose statistics PostgreSQL knows."""
    with tables(postgres) as connection:
        connection.execute(FILL)  # type: ignore[call-overload]
        connection.execute("ANALYZE")
        yield connection


@pytest.mark.parametrize("settings", [{}, SETTINGS, LOOKING_AGAIN], ids=["joined", "ours", "again"])
@pytest.mark.parametrize(("statement", "values"), PIECES)
def test_it_changes_as_many_rows_as_it_may(
    connection: psycopg.Connection[Any], statement: str, values: tuple[Any, ...], settings: dict[str, str]
) -> None:
    with connection.transaction(force_rollback=True):
        for name, value in settings.items():
            connection.execute(f"SET LOCAL {name} = '{value}'")  # type: ignore[call-overload]
        changed = connection.execute(schema.qualified(statement, "public"), values)  # type: ignore[call-overload]
        assert changed.rowcount == 2
