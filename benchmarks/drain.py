"""Benchmark: tasks per second of one worker process that drains a backlog of empty tasks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

from fastapi import FastAPI

from afterwards import Afterwards
from afterwards.engines import shared
from benchmarks.hueys import Hueys
from benchmarks.measure import Aim, Figure, apart, folder, in_turns, run
from benchmarks.tasks import countdown, fill, url

ROUNDS = 3
FEW, MANY = 20_000, 150_000
CONCURRENCY = 200


def figures() -> list[Figure]:
    us, long, huey = in_turns(
        ROUNDS, partial(_drained, _in_file, FEW), partial(_drained, _in_file, MANY), partial(_drained, hueys, FEW)
    )
    return [
        Figure(what=f"{FEW:,} tasks", ours=us, peer="huey, synchronous FULL", theirs=huey, aim=Aim(5)),
        Figure(what=f"{MANY:,} tasks", ours=long, peer=f"our own {FEW:,}", theirs=us, aim=Aim(0.9)),
    ]


def ours(store: str, tasks: int) -> float:
    """Return tasks per second of an embedded worker in an application without requests."""
    return run(_ours(store, tasks))


def _in_file(file: Path, tasks: int) -> float:
    return ours(url(file), tasks)


def hueys(file: Path, tasks: int) -> float:
    """Return tasks per second with one thread, which was fastest."""
    peer = Hueys(file)
    peer.fill(tasks)
    begun = perf_counter()
    with peer.consuming():
        peer.wait()
        return tasks / (perf_counter() - begun)


def _drained(contender: Callable[[Path, int], float], tasks: int) -> float:
    with folder() as place:
        return apart(contender, place / "tasks.db", tasks)


async def _ours(store: str, tasks: int) -> float:
    app = FastAPI()
    Afterwards(app, store, concurrency=CONCURRENCY)
    async with shared(store) as engine:
        await fill(engine, tasks)
        countdown.left = tasks
        begun = perf_counter()
        async with app.router.lifespan_context(app):
            await countdown.over.wait()
        took = perf_counter() - begun  # the lifespan has ended, so the last task is stored
        [finished] = (await engine.stats()).counts.values()
        assert finished == tasks
    return tasks / took
