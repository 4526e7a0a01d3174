"""How SQLite looks for tasks: always by the index that was made for it."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest

from afterwards.core.storing import KeyKind
from afterwards.core.task import State
from afterwards.engines.sqlite import io, operations, placeholders
from afterwards.engines.sqlite.io.connection import LOOK, Connection
from afterwards.engines.sqlite.io.schema import connect
from afterwards.engines.sqlite.operations import (
    changing,
    claiming,
    clock_correction,
    dispatching,
    files,
    handing_over,
    pausing,
    pruning,
    reading,
    renewing,
    scheduling,
    searching,
    storing,
    successors,
)

BY_INDEX = {
    "changing.UPDATE": "afterwards_id",
    "skip_scan.NEXT_QUEUE": "afterwards_queued (suspect=? AND queue>?)",
    "skip_scan.NEXT_NAME": "afterwards_queued (suspect=? AND queue=? AND name>?)",
    "skip_scan.LANE": "afterwards_queued (suspect=? AND queue=? AND name=?)",
    "skip_scan.NEXT_LIMITED_QUEUE": "afterwards_limited (suspect=? AND queue>?)",
    "skip_scan.NEXT_LIMITED_NAME": "afterwards_limited (suspect=? AND queue=? AND name>?)",
    "skip_scan.NEXT_LIMIT_KEY": "afterwards_limited (suspect=? AND queue=? AND name=? AND limit_key>?)",
    "skip_scan.LIMITED_LANE": "afterwards_limited (suspect=? AND queue=? AND name=? AND limit_key=?)",
    "skip_scan.BUNDLE": "afterwards_limited_first (suspect=? AND queue=? AND name=?)",
    "registration.LIMITED_BACKLOG": "afterwards_limited_first (suspect=? AND queue=? AND name=?)",
    "limiting.STARTS": "afterwards_started (name=? AND limit_key=? AND at>?)",
    "pruning.DELETE_STARTS": "afterwards_start_over (until<?)",
    "claiming.PROMOTE": "afterwards_scheduled (run_at<?)",
    "writer.NEXT_DUE": "afterwards_scheduled",
    "reading.EXPIRED": "afterwards_running (lease_until<?)",
    "pruning.ANY_OVER": "afterwards_over (<expr><?)",
    "pruning.OVER": "afterwards_over (<expr><?)",
    "reading.OLDEST": "afterwards_queued",
    "clock_correction.WRONG": "afterwards_queued",
    "clock_correction.NEXT_PLACES": "INTEGER PRIMARY KEY (rowid>?)",
    "clock_correction.PUT_FINISHED_RIGHT": "INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
    "clock_correction.PUT_FILES_RIGHT": "afterwards_files_over (until>?)",
    "registration.DUE_BACKLOG": "afterwards_scheduled (run_at<?)",
    "registration.BACKLOG": "afterwards_queued (suspect=? AND queue=? AND name=?)",
    "files.CHUNKS": "afterwards_chunk (file=? AND number>? AND number<?)",
    "files.ANY_FILE_OVER": "afterwards_files_over (until<?)",
    "files.FILES_OVER": "afterwards_files_over (until<?)",
    "handing_over.COUNTING_STARTS": "afterwards_start_over (until>? AND until<?)",
    "handing_over.NEWEST": "INTEGER PRIMARY KEY (rowid<?)",
    "pruning.ANY_OLD_TALLY": "INTEGER PRIMARY KEY (rowid<?)",
    "pruning.DELETE_TALLIES": "INTEGER PRIMARY KEY (rowid<?)",
    "pruning.ANY_OLD_DISPATCH": "afterwards_dispatched (at<?)",
    "pruning.DELETE_DISPATCHES": "afterwards_dispatched (at<?)",
}


FOR_MANY = {
    reading.GET_ALL: "afterwards_id (id=?)",
    reading.PLACES: "afterwards_id (id=?)",
    reading.ALIASES: "PRIMARY KEY (id=?)",
    handing_over.ALIASES_OF: "afterwards_alias_task (task=?)",
    handing_over.CONTENTS: "afterwards_chunk (file=? AND number=?)",
    handing_over.DELETE_CHUNKS: "afterwards_chunk (file=? AND number=?)",
    reading.FAILURES: "afterwards_failed (task=?)",
    reading.LOGS: "afterwards_logged (task=?)",
    storing.LIKE[KeyKind.IDEMPOTENCY]: "afterwards_idempotent (idempotency_key=?)",
    storing.LIKE[KeyKind.UNIQUE]: "afterwards_unique (unique_key=?)",
    storing.WAITING_IN: "afterwards_queued (suspect=? AND queue=?)",
    storing.PUBLISH_ALL: "afterwards_id (id=?)",
    storing.SCHEDULE_ALL: "afterwards_id (id=?)",
    renewing.HELD: "afterwards_id (id=?)",
    renewing.RENEW: "afterwards_id (id=?)",
    renewing.SET_PROGRESS: "afterwards_id (id=?)",
    renewing.END_LEASES: "afterwards_running (lease_until>?)",
    claiming.QUEUED_BY_ID: "afterwards_id (id=?)",
    dispatching.MARKED: "PRIMARY KEY (task=? AND attempt=?)",
    dispatching.ARRIVED: "PRIMARY KEY (task=? AND attempt=?)",
    changing.UPDATE_ALL: "afterwards_id (id=?)",
    changing.COUNT_LEFT_OUT: "afterwards_failed (task=?)",
    changing.TRIM_FAILURES: "afterwards_failed (task=?)",
    changing.TRIM_LOGS: "afterwards_logged (task=?)",
    successors.NEXT_BEHIND: "afterwards_waiting (after=?)",
    successors.ALL_BEHIND: "afterwards_waiting (after=?)",
    successors.BEHIND_WHICH_ANY_WAIT: "afterwards_waiting (after=?)",
    successors.ALL_CANCELLED_BEHIND: "afterwards_cancelled_for_another (after=? AND rowid>?)",
    successors.LAST_CANCELLED_BEHIND: "afterwards_cancelled_for_another (after=?)",
    successors.TAKEN_KEYS: "afterwards_unique (unique_key=?)",
    pruning.FINISHED: "afterwards_id (id=?)",
    pruning.DELETE_TASKS: "afterwards_id (id=?)",
    pruning.DELETE_FAILURES: "afterwards_failed (task=?)",
    pruning.DELETE_ALIASES: "afterwards_alias_task (task=?)",
    files.RELEASE_FILES: "afterwards_files_of (task=?)",
    files.KEEP_FILES: "afterwards_file (id=?)",
    files.DELETE_CHUNKS: "afterwards_chunk (file=?)",
    files.DELETE_EMPTY_FILES: "afterwards_file (id=?)",
    clock_correction.PUT_TASKS_RIGHT: "afterwards_id (id=?)",
    scheduling.FIRE_ALL: "PRIMARY KEY (name=?)",
    pausing.PAUSE_SCHEDULES: "PRIMARY KEY (name=?)",
    pausing.RESUME_SCHEDULES: "PRIMARY KEY (name=?)",
    pausing.RESUME: "PRIMARY KEY (kind=? AND name=?)",
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with closing(connect(tmp_path / "tasks.db", patience=timedelta(seconds=1))) as connection:
        yield connection


def text(name: str) -> str:
    """The statement of an operation."""
    module, constant = name.split(".")
    package = io if module == "writer" else operations
    found: str = getattr(import_module(f"{package.__name__}.{module}"), constant)
    return found


def plan(connection: Connection, statement: str) -> str:
    steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))
    return "\n".join(step for *_, step in steps)


@pytest.mark.parametrize(("name", "index"), BY_INDEX.items())
def test_a_statement_uses_its_index_and_sorts_nothing(connection: Connection, name: str, index: str) -> None:
    found = plan(connection, text(name))
    assert f"INDEX {index}" in found or f"USING {index}" in found
    assert "TEMP B-TREE" not in found
    assert "AUTOMATIC" not in found


@pytest.mark.parametrize("statement", FOR_MANY)
def test_a_statement_for_many_looks_each_of_them_up(connection: Connection, statement: str) -> None:
    width = 1 + statement.split("AS (VALUES")[0].count(",") if "{rows}" in statement else 0
    row = f"({', '.join('?' * width)})"
    found = plan(connection, statement.replace("{places}", "?, ?, ?").replace("{rows}", f"{row}, {row}, {row}"))
    assert f"INDEX {FOR_MANY[statement]}" in found or f"USING {FOR_MANY[statement]}" in found
    assert not re.search(r"SCAN afterwards_(?!behind)\w+$", found, re.MULTILINE)  # that table is all but empty


@pytest.mark.parametrize("name", ["finishing.STILL_HELD", "finishing.SUCCEED", "finishing.SUCCEED_ALL"])
@pytest.mark.parametrize("results", [1, 3])
def test_many_ids_are_each_looked_up(connection: Connection, name: str, results: int) -> None:
    steps = set(plan(connection, placeholders.sized(text(name), 3, results)).splitlines())
    assert steps - {"SCALAR SUBQUERY 1"} == {"SEARCH afterwards_tasks USING INDEX afterwards_id (id=?)"}


@pytest.mark.parametrize("name", ["claiming.TAKE", "claiming.TAKEN"])
def test_what_was_found_is_taken_by_its_place(connection: Connection, name: str) -> None:
    statement = placeholders.sized(text(name), 3)
    assert plan(connection, statement) == "SEARCH afterwards_tasks USING INTEGER PRIMARY KEY (rowid=?)"


@pytest.mark.parametrize("state", State)
def test_what_people_look_for_is_found_by_an_index_of_few_or_from_the_newest_on(
    connection: Connection, state: State
) -> None:
    for condition, index in searching.PARTS[state]:
        found = plan(connection, searching.FIND.format(index=index, conditions=condition))
        by_index = index.removeprefix("INDEXED BY") in found
        assert by_index or ("SCAN afterwards_tasks" in found and "TEMP B-TREE" not in found)


@pytest.mark.parametrize("state", State)
def test_tasks_in_a_state_and_a_queue_are_counted_by_an_index(connection: Connection, state: State) -> None:
    for condition, index in searching.COUNTED[state]:
        found = plan(connection, searching.COUNT.format(index=index, conditions=f"{condition} AND queue IN (?)"))
        assert index.removeprefix("INDEXED BY ") in found


@pytest.mark.parametrize("part", [("1", ""), *(part for parts in searching.PARTS.values() for part in parts)])
def test_the_tasks_behind_one_are_found_by_their_own_index(connection: Connection, part: tuple[str, str]) -> None:
    conditions = f"{part[0]} AND {searching.BEHIND}"
    found = plan(connection, searching.FIND.format(index=searching.BY_AFTER, conditions=conditions))
    assert "INDEX afterwards_after (<expr>=?)" in found
    assert "TEMP B-TREE" not in found


@pytest.mark.parametrize("state", State)
def test_a_piece_of_a_search_reads_the_tasks_in_its_places(connection: Connection, state: State) -> None:
    for condition, _ in searching.PARTS[state]:
        conditions = f"{condition} AND {searching.WITHIN}"
        found = plan(connection, searching.FIND.format(index="NOT INDEXED", conditions=conditions))
        assert "SEARCH afterwards_tasks USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in found
        assert "TEMP B-TREE" not in found


def test_the_counts_of_a_span_are_found_by_its_beginning(connection: Connection) -> None:
    assert "SEARCH afterwards_tallies USING INTEGER PRIMARY KEY (rowid>?)" in plan(connection, reading.TALLIES)


def test_the_failures_in_which_a_text_is_sought_are_those_of_one_task(connection: Connection) -> None:
    conditions = searching.CONTAINS.format(or_in_id=searching.IN_ID)
    found = plan(connection, searching.COUNT.format(index="", conditions=conditions))
    assert "SEARCH afterwards_failures USING INDEX afterwards_failed (task=?)" in found


def test_a_look_is_some_short_ones(connection: Connection) -> None:
    found = plan(connection, LOOK).splitlines()
    for index in ("scheduled (run_at<?)", "expiring (expires_at>? AND expires_at<?)", "queued", "limited", "waiting"):
        assert any(f"INDEX afterwards_{index}" in step for step in found)
    assert not any(step.startswith("SCAN afterwards_tasks") and "INDEX" not in step for step in found)


def test_a_look_for_times_of_a_wrong_clock_reads_one_finished_task(connection: Connection) -> None:
    found = plan(connection, clock_correction.WRONG).splitlines()
    assert "SCAN afterwards_tasks USING INDEX afterwards_over" in found  # backwards: the first one is enough
    assert any("INDEX afterwards_files_over (until>?)" in step for step in found)
    assert not any(step.startswith("SCAN afterwards_tasks") and "INDEX" not in step for step in found)


def test_counting_reads_no_finished_task(connection: Connection) -> None:
    assert all("INDEX" in step for step in plan(connection, reading.COUNTS).splitlines() if "SCAN" in step)
