"""Benchmark: time of a claim of 100 tasks, with few stored rows and with many."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from time import perf_counter

from afterwards.core.settling import Settled
from afterwards.core.task import State
from afterwards.engine import Claim, Engine
from afterwards.engines import shared
from benchmarks.measure import Aim, Figure, apart, folder
from benchmarks.tasks import fill, new_task, url

ROUNDS = 40
FEW, MANY = 1_000, 1_000_000
AIM = Aim(1.5, at_most=True)

CLAIM = Claim(worker="bench", limit=100, lease=timedelta(hours=1), names=frozenset({"nothing"}))

COPY = """
    WITH RECURSIVE copies (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM copies WHERE number < {times})
    INSERT INTO afterwards_tasks (id, {columns})
    SELECT next_id(), {columns} FROM copies, (SELECT * FROM afterwards_tasks LIMIT 1)
"""


def figures() -> list[Figure]:
    with folder() as place:
        few, *rest = apart(times, place)
    return [
        Figure(what=what, ours=ms, peer=f"{FEW:,} queued", theirs=few, unit=" ms", aim=AIM)
        for what, ms in zip(_told(), rest, strict=True)
    ]


def times(place: Path) -> list[list[float]]:
    """Return milliseconds by round: with few rows, and with many rows of each kind."""
    return asyncio.run(_times(place))


def _told() -> list[str]:
    return [f"{MANY:,} {how} beside" for how in ("queued", "finished", "scheduled, of a higher priority,")]


async def _times(place: Path) -> list[list[float]]:
    files = [place / f"{number}.db" for number in range(4)]
    for file, make in zip(files[1:], (queue_one, finish_one, _schedule), strict=True):
        await _make_many(file, make)
    return await in_stores([url(file) for file in files])


async def in_stores(stores: Sequence[str]) -> list[list[float]]:
    """Return the milliseconds of claims in each of these stores, by round, beside ``FEW`` more queued tasks."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(shared(store)) for store in stores]
        for engine in engines:
            await fill(engine, FEW)
        rounds = [await _round(engines) for _ in range(ROUNDS)]
    return [list(one) for one in zip(*rounds, strict=True)]


async def _round(engines: Sequence[Engine]) -> list[float]:
    return [await _claim(engine) for engine in engines]


async def _claim(engine: Engine) -> float:
    """Return the milliseconds of a claim, and store as many tasks again for the next claim."""
    begun = perf_counter()
    claimed = await engine.claim(CLAIM)
    took = perf_counter() - begun
    assert len(claimed) == CLAIM.limit
    await fill(engine, CLAIM.limit)
    return took * 1000


async def _make_many(file: Path, make: Callable[[Engine], Awaitable[object]]) -> None:
    """Make a file with very many rows that differ only in their ids."""
    async with shared(url(file)) as engine:
        await make(engine)
    _copy(file)


async def queue_one(engine: Engine) -> None:
    await fill(engine, 1)


async def finish_one(engine: Engine) -> None:
    await fill(engine, 1)
    [task] = await engine.claim(CLAIM)
    await engine.finish([Settled(lease=task.lease, state=State.SUCCEEDED)])


async def _schedule(engine: Engine) -> None:
    await engine.enqueue([replace(new_task(wait=timedelta(days=1)), priority=100)])


def _copy(file: Path) -> None:
    """Copy the only row in SQL; through the engine, a million rows would take minutes."""
    numbers = count(1)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.create_function("next_id", 0, lambda: next(numbers).to_bytes(16))
        connection.execute("PRAGMA synchronous = OFF")
        names = [name for _, name, *_ in connection.execute("PRAGMA table_info(afterwards_tasks)")]
        columns = ", ".join(name for name in names if name not in ("seq", "id"))
        connection.execute(COPY.format(columns=columns, times=MANY))
