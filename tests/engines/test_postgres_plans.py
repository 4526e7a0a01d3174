"""Each statement of the PostgreSQL engine finds its rows by an index, also in a table without statistics."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_calls import tables

from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.connections import SETTINGS
from afterwards.engines.postgres.io.transactions import SERVER_CLOCK, SERVER_NOW
from afterwards.engines.postgres.operations import (
    candidates,
    claiming,
    clock_correction,
    dispatching,
    finishing,
    limiting,
    looking,
    pruning,
    publishing,
    reading,
    registration,
    renewing,
    searching,
    set_aside,
    storing,
    successors,
    timing,
)
from afterwards.engines.postgres.rows import as_json
from servers.postgres import PostgresServer

pytestmark = pytest.mark.xdist_group("postgres_plans")

MANY = 20_000
NOW = 1_800_000_000_000_000

FILL = f"""
    INSERT INTO afterwards_tasks (id, name, arguments, created_at, state, queue, priority, finished_at, retention)
    SELECT gen_random_uuid(), 'greet', '{{}}', n, 'succeeded', 'default', 0, {NOW} + n, 0
    FROM generate_series(1, {MANY}) AS n
    UNION ALL
    SELECT gen_random_uuid(), 'greet', '{{}}', n, 'queued', 'default', 0, NULL, 0 FROM generate_series(1, {MANY}) AS n
"""

SEND = f"""
    INSERT INTO afterwards_dispatches (task, attempt, at, sent)
    SELECT gen_random_uuid(), 1, {NOW} + n, 1 FROM generate_series(1, {MANY}) AS n
"""

ID = ["018f22e2-79b0-7000-8000-000000000000"]
END = as_json([{"id": ID[0], "attempt": 1, "failed": 0, "crashed": 0}])
MARK = as_json([{"id": ID[0], "attempt": 1, "sent": 1}])
LANE = ["default"], ["greet"]
LEASE = "w", NOW + 1, NOW
ROUTE = as_json([{"name": "greet", "queue": "default"}])


def counted(conditions: str) -> str:
    return searching.COUNT.format(parts=searching.COUNT_PART.format(conditions=conditions))


IN_A_PIECE = f"t.state = 'queued' AND {searching.WITHIN} AND {searching.FOUND}"

STATEMENTS: list[tuple[str, tuple[Any, ...]]] = [
    (looking.LOOK, ()),
    (looking.DUE_LANES, (NOW,)),
    (claiming.TAKE_FIRST, (*LANE, 100, 100, "w", 1)),
    (candidates.TO_CLAIM.queued, (*LANE, NOW, 100, 100)),
    (candidates.TO_CLAIM.suspects, (*LANE, NOW, 100, 100)),
    (candidates.TO_CLAIM.limited, (*LANE, NOW, 100, 100)),
    (candidates.TO_CLAIM.of_each_key, (*LANE, NOW, 100)),
    (candidates.TO_DISPATCH.queued, (*LANE, NOW, 100, 100)),
    (candidates.TO_DISPATCH.suspects, (*LANE, NOW, 100, 100)),
    (candidates.TO_DISPATCH.limited, (*LANE, NOW, 100, 100)),
    (candidates.TO_DISPATCH.of_each_key, (*LANE, NOW, 100)),
    (dispatching.PUT_MARKS, (NOW, MARK)),
    (dispatching.DELETE_ARRIVED, (END,)),
    (dispatching.FORGET, (NOW,)),
    (dispatching.FORGET_THOSE_AHEAD, (NOW + MANY,)),
    (candidates.BY_ID, (ID, NOW)),
    (claiming.TAKE, ([1], [0], *LEASE)),
    (timing.PROMOTE, (NOW, 100)),
    (renewing.RENEW, (END, NOW)),
    (limiting.RUNNING, (["greet"],)),
    (storing.LOAD[False], (ID, ["u"], ["i"])),
    (storing.LOAD[True], (ID, ["u"], ["i"])),
    (storing.LOAD_PREDECESSORS[False], (ID,)),
    (storing.LOAD_PREDECESSORS[True], (ID,)),
    (storing.ALIASES, (ID,)),
    (publishing.PUBLISH, (END,)),
    (finishing.SUCCEED, (END,)),
    (finishing.LOCK_ENDING, (ID, ID)),
    (finishing.LOCK_STANDING, (ID, ID)),
    (finishing.LOCK_OVERDUE, (NOW, 100)),
    (successors.LOCK_TASKS, (ID,)),
    (successors.NEXT_BEHIND, (ID, 100)),
    (successors.ALL_BEHIND, (ID, 100)),
    (successors.ALL_CANCELLED_BEHIND, (ID, 0, 100)),
    (successors.TAKEN_KEYS, (["u"],)),
    (reading.STANDING, (ID, ID)),
    (reading.PLACES, (ID, ID)),
    (reading.HISTORIES, (ID,)),
    (reading.EXPIRED, (NOW, 100)),
    (searching.FIND.format(conditions="true AND " + searching.BEFORE), (ID[0], 100)),
    (searching.FIND.format(conditions="t.state = 'failed'"), (100,)),
    (searching.FIND.format(conditions="t.state = 'waiting'"), (100,)),
    (searching.FIND.format(conditions="true AND " + searching.BEHIND), (ID[0], 100)),
    (
        searching.COUNT.format(parts=searching.COUNT_PART.format(conditions="true AND " + searching.BEHIND)),
        (ID[0], 100, 100),
    ),
    (searching.COUNT.format(parts=searching.COUNT_PART.format(conditions="t.state = 'failed'")), (100, 100)),
    (pruning.ANY_OVER, (NOW,)),
    (pruning.DELETE_TASKS, (NOW, 100)),
    (pruning.DELETE_FINISHED, (ID,)),
    (pruning.DELETE_FAILURES, (ID,)),
    (clock_correction.WRONG, (NOW + MANY,) * 14),
    (clock_correction.NEXT_PLACES, (0, 100)),
    (clock_correction.PUT_FINISHED_RIGHT, (*(NOW + MANY,) * 5, 0, 100, NOW + MANY)),
    (clock_correction.PUT_FILES_RIGHT, (NOW + MANY, NOW + MANY, 100)),
    (set_aside.LOST_TO_INDEXES, ()),
    (registration.DUE_ROUTES, (NOW,)),
]


@pytest.fixture(scope="module")
def connection(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A large table that autovacuum has not seen, and the settings of the engine's connections."""
    with tables(postgres) as connection:
        connection.execute("ALTER TABLE afterwards_tasks SET (autovacuum_enabled = false)")
        connection.execute("ALTER TABLE afterwards_dispatches SET (autovacuum_enabled = false)")
        connection.execute(FILL)
        connection.execute(SEND)
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items()))
        yield connection


@pytest.mark.parametrize(("statement", "values"), STATEMENTS)
def test_it_reads_few_rows(connection: psycopg.Connection[Any], statement: str, values: tuple[Any, ...]) -> None:
    text = schema.qualified(statement, "public").replace("{now}", SERVER_NOW).replace("{clock}", SERVER_CLOCK)
    with connection.transaction(force_rollback=True):
        [(explained,)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", values or None).fetchall()  # type: ignore[call-overload]
    plan = explained if isinstance(explained, list) else json.loads(explained)
    for node in nodes(plan[0]["Plan"]):
        if node.get("Relation Name") in ("afterwards_tasks", "afterwards_dispatches"):
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert read <= 300, f"{node['Node Type']} by {node.get('Index Name')} reads {read} rows"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
