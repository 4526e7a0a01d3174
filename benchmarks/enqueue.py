"""Benchmark: durable enqueues per second, one task per call, by 1, 8 and 64 coroutines at once."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter, time

import aiosqlite

from afterwards.engines import shared
from benchmarks.measure import Aim, Figure, apart, folder, in_turns, run
from benchmarks.tasks import ARGUMENTS, new_task, url

ROUNDS = 5
SECONDS = 1.0

PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")

TABLE = (
    "CREATE TABLE tasks (id INTEGER PRIMARY KEY, name TEXT, arguments TEXT, state INTEGER, created_at REAL)",
    "CREATE INDEX tasks_queued ON tasks (id) WHERE state = 0",
)
"""A table that one would write by hand; it stores less than our record."""

INSERT = "INSERT INTO tasks (name, arguments, state, created_at) VALUES (?, ?, 0, ?)"


def figures() -> list[Figure]:
    found = []
    for callers in (1, 8, 64):
        with folder() as place:
            contenders = [partial(apart, contender, place, callers) for contender in (in_file, by_hand, loop, batches)]
            us, aiosqlite_, one, many = in_turns(ROUNDS, *contenders)
        compared = partial(Figure, ours=us)
        who = f"{callers} coroutines"
        found += [
            compared(what=who, peer="aiosqlite", theirs=aiosqlite_, aim=Aim(15) if callers == 64 else None),
            compared(what=who, peer="plain loop, one transaction per call", theirs=one),
            compared(what=who, peer=f"plain loop, executemany of {callers}", theirs=many),
        ]
    return found


def ours(store: str, callers: int, at_once: int = 1) -> float:
    """Return tasks stored per second, ``at_once`` in each call."""

    async def measured() -> float:
        async with shared(store) as engine:
            return at_once * await rate(
                lambda: engine.enqueue([new_task(arguments=ARGUMENTS) for _ in range(at_once)]), callers
            )

    return run(measured())


def in_file(place: Path, callers: int) -> float:
    return ours(url(place / "ours.db"), callers)


def by_hand(place: Path, callers: int) -> float:
    """Use one aiosqlite connection, with a transaction for each statement."""

    async def measured() -> float:
        async with aiosqlite.connect(_prepared(place / "aiosqlite.db"), isolation_level=None) as connection:
            for pragma in PRAGMAS:
                await connection.execute(pragma)
            return await rate(lambda: connection.execute_insert(INSERT, _row()), callers)

    return run(measured())


def loop(place: Path, callers: int) -> float:
    """Commit in a plain loop: the limit of disk and SQLite without shared commits."""
    return batches(place, 1)


def batches(place: Path, rows: int) -> float:
    """Commit as many rows at once as there are callers: the most that shared commits can gain."""
    connection = _connected(_prepared(place / "plain.db"))
    begun, stored = perf_counter(), 0
    while perf_counter() - begun < SECONDS:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, [_row() for _ in range(rows)])
        connection.execute("COMMIT")
        stored += rows
    return stored / (perf_counter() - begun)


async def rate(store: Callable[[], Awaitable[object]], callers: int) -> float:
    """Return calls per second of several coroutines that each call one after the other."""
    begun, stored = perf_counter(), 0

    async def caller() -> None:
        nonlocal stored
        while perf_counter() - begun < SECONDS:
            await store()
            stored += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return stored / (perf_counter() - begun)


def _row() -> tuple[str, str, float]:
    return "nothing", ARGUMENTS, time()


def _prepared(file: Path) -> Path:
    if not file.exists():
        connection = _connected(file)
        for statement in TABLE:
            connection.execute(statement)
        connection.close()
    return file


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(pragma)
    return connection
