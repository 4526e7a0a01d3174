"""Benchmark: one long chain, as of a request with very many tasks, and successive ``await f.enqueue()``."""

from functools import partial
from pathlib import Path
from time import perf_counter

from fastapi import FastAPI

from afterwards import Afterwards, chain
from benchmarks import enqueue
from benchmarks.measure import Aim, Figure, apart, folder, in_turns, run
from benchmarks.tasks import countdown, nothing, url

ROUNDS = 3
FEW, MANY = 100, 1000
CALLS = 1000


def figures() -> list[Figure]:
    with folder() as place:
        contenders = [partial(apart, chained, FEW), partial(apart, chained, MANY)]
        few, many, one_by_one, loop = in_turns(
            ROUNDS, *contenders, partial(apart, enqueued, CALLS), partial(apart, enqueue.loop, place, 1)
        )
    return [
        Figure(what=f"chain of {MANY:,}", ours=many, peer=f"our own of {FEW}", theirs=few, aim=Aim(0.8)),
        Figure(what="one enqueue after another", ours=one_by_one, peer="plain loop, no coroutines", theirs=loop),
    ]


def chained(tasks: int) -> float:
    """Return tasks per second of one chain, until all have run."""

    async def measured(file: Path) -> float:
        app = FastAPI()
        Afterwards(app, url(file))
        async with app.router.lifespan_context(app):
            countdown.left = tasks
            countdown.over.clear()
            begun = perf_counter()
            await chain(*(nothing.call(number) for number in range(tasks)))
            await countdown.over.wait()
            return tasks / (perf_counter() - begun)

    with folder() as place:
        return run(measured(place / "tasks.db"))


def enqueued(calls: int) -> float:
    """Return calls per second of an application without a worker."""

    async def measured(file: Path) -> float:
        app = FastAPI()
        Afterwards(app, url(file), worker=False)
        async with app.router.lifespan_context(app):
            begun = perf_counter()
            for number in range(calls):
                await nothing.enqueue(number)
            return calls / (perf_counter() - begun)

    with folder() as place:
        return run(measured(place / "tasks.db"))
