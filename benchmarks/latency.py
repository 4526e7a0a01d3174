"""Benchmark: latency from the enqueuing call to the first line of the task function, when idle."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic_ns, sleep
from typing import TypeVar

from fastapi import FastAPI

from afterwards import Afterwards, task
from benchmarks.hueys import Hueys
from benchmarks.measure import Aim, Figure, apart, beside, folder, in_turns, percentile, run
from benchmarks.tasks import Countdown, url

ROUNDS = 5
TASKS = 200
PAUSE = 0.02

T = TypeVar("T")
Waits = list[float]
"""Latencies in milliseconds, in order of arrival, without the first, which only warms up."""

countdown = Countdown()
waits: Waits = []


@task
async def arrive(begun: int) -> None:
    """Record the latency. The clock is the same for all processes of a machine."""
    waits.append((monotonic_ns() - begun) / 1e6)
    countdown.count()


def figures() -> list[Figure]:
    here, elsewhere, huey = in_turns(
        ROUNDS,
        partial(_in_folder, _alone),
        partial(_in_folder, _between_two),
        partial(_in_folder, partial(between, send_to_huey, receive_as_huey)),
    )
    return [*_compared("same process", here, huey), *_compared("between processes", elsewhere, huey)]


def alone(file: Path) -> Waits:
    """Measure with sender and worker in one process and event loop."""

    async def measured() -> Waits:
        async with _working(url(file)):
            await _send()
            await countdown.over.wait()
        return waits[1:]

    return run(measured())


def receive(store: str) -> Waits:
    async def measured() -> Waits:
        async with _working(store):
            await countdown.over.wait()
        return waits[1:]

    return run(measured())


def send(store: str) -> None:
    async def measured() -> None:
        async with _working(store, worker=False):
            await _send()

    run(measured())


def receive_as_huey(file: Path) -> Waits:
    peer = Hueys(file)
    peer.left = TASKS + 1
    with peer.consuming():
        peer.wait()
    return peer.waits[1:]


def send_to_huey(file: Path) -> None:
    peer = Hueys(file)
    peer.arrive(monotonic_ns())
    peer.settle()
    for _ in range(TASKS):
        sleep(PAUSE)
        peer.arrive(monotonic_ns())


def _in_folder(contender: Callable[[Path], Waits]) -> Waits:
    with folder() as place:
        return contender(place / "tasks.db")


def _alone(file: Path) -> Waits:
    return apart(alone, file)


def _between_two(file: Path) -> Waits:
    return between(send, receive, url(file))


def between(send: Callable[[T], None], receive: Callable[[T], Waits], store: T) -> Waits:
    """Measure with sender and worker in two processes."""
    with beside(receive, store) as received:
        apart(send, store)
        return received.result()


@asynccontextmanager
async def _working(store: str, *, worker: bool = True) -> AsyncIterator[None]:
    app = FastAPI()
    Afterwards(app, store, worker=worker)
    countdown.left = TASKS + 1
    async with app.router.lifespan_context(app):
        yield


async def _send() -> None:
    first = await arrive.enqueue(monotonic_ns())
    await first.result()
    for _ in range(TASKS):
        await asyncio.sleep(PAUSE)
        await arrive.enqueue(monotonic_ns())


def _compared(what: str, ours: list[Waits], theirs: list[Waits]) -> list[Figure]:
    p50, p99 = percentiles(ours, 50), percentiles(ours, 99)
    against = partial(Figure, peer="huey, looks every 10 ms", unit=" ms")
    return [
        against(what=f"{what}, p50", ours=p50, theirs=percentiles(theirs, 50), aim=Aim(0.2, at_most=True)),
        against(what=f"{what}, p99", ours=p99, theirs=percentiles(theirs, 99)),
        Figure(what=f"{what}, p99", ours=p99, peer="our own p50", theirs=p50, unit=" ms", aim=Aim(3, at_most=True)),
    ]


def percentiles(rounds: list[Waits], percent: float) -> list[float]:
    return [percentile(waits, percent) for waits in rounds]
