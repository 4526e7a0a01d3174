"""Benchmark: bytes of a task in the file, and memory growth of a serving process."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from afterwards.engines import shared
from benchmarks.load import Load
from benchmarks.measure import Aim, Figure, apart, folder
from benchmarks.requests import load_bare, load_durable
from benchmarks.server import Server, served
from benchmarks.tasks import ARGUMENTS, AT_ONCE, new_task, url

QUEUED = 100_000
SERVED = 20_000
"""Requests, with one task each, after which memory should no longer grow."""


def figures() -> list[Figure]:
    durable, bare = _memory("durable", load_durable), _memory("bare", load_bare)
    over, grown = durable[0] - bare[0], durable[1] - durable[0]
    return [
        _figure("bytes per queued task", apart(bytes_per_task), 200, ""),
        _figure(f"memory over bare FastAPI's, after {SERVED:,} tasks", over, 12, " MiB"),
        _figure(f"what {SERVED:,} tasks more add", grown, 1, " MiB"),
    ]


def bytes_per_task() -> float:
    """Return bytes per task with 57 bytes of arguments, in a closed file."""
    with folder() as place:
        few, many = place / "few.db", place / "many.db"
        asyncio.run(_store(few, AT_ONCE))
        asyncio.run(_store(many, QUEUED + AT_ONCE))
        return (many.stat().st_size - few.stat().st_size) / QUEUED


async def _store(file: Path, tasks: int) -> None:
    async with shared(url(file)) as engine:
        for _ in range(0, tasks, AT_ONCE):
            await engine.enqueue([new_task(arguments=ARGUMENTS) for _ in range(AT_ONCE)])


def _memory(app: str, load: Callable[[Server, int], Load]) -> list[float]:
    """Return the server's memory in MiB after ``SERVED`` requests, and after twice as many."""
    with folder() as place, served(app, url(place / "tasks.db")) as server:
        return [_after(server, load) for _ in range(2)]


def _after(server: Server, load: Callable[[Server, int], Load]) -> float:
    accepted = 0
    while accepted < SERVED:
        accepted += load(server, 32).accepted
    return server.memory()


def _figure(what: str, number: float, most: float, unit: str) -> Figure:
    return Figure(what=what, ours=[number], unit=unit, aim=Aim(most, at_most=True))
