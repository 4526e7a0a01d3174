"""When the ends of attempts are stored: together with others, unless something waits for one of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import uuid4

import pytest

from afterwards.core.settling import Settled
from afterwards.core.task import NewTask, State
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine
from afterwards.execution.health import Health
from afterwards.worker.finisher import Finisher

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

TIMEOUT = 10.0


class Stored:
    """A finisher at work, and what it has stored."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.batches: list[Sequence[Settled]] = []
        self.any = asyncio.Event()
        self.finisher = Finisher(engine, self, Health(), linger=1e9)  # seconds: what lingers is never stored

    def stored(self, batch: Sequence[Settled]) -> None:
        self.batches.append(batch)
        self.any.set()


@pytest.fixture
async def engine() -> AsyncIterator[MemoryEngine]:
    async with MemoryEngine() as engine:
        yield engine


async def leased(engine: MemoryEngine, count: int) -> list[Settled]:
    """Successes of so many tasks that run."""
    await engine.enqueue([NewTask(id=str(uuid4()), name="f", arguments="{}") for _ in range(count)])
    claim = Claim(worker="w", limit=count, lease=timedelta(minutes=1), names=frozenset({"f"}))
    return [Settled(lease=task.lease, state=State.SUCCEEDED) for task in await engine.claim(claim)]


async def test_an_end_that_something_waits_for_does_not_linger(engine: MemoryEngine) -> None:
    one, two = await leased(engine, 2)
    stored = Stored(engine)
    running = asyncio.create_task(stored.finisher.run())
    stored.finisher.add(one)
    for _ in range(3):
        await asyncio.sleep(0)
    assert stored.batches == []
    stored.finisher.add(two, at_once=True)
    await asyncio.wait_for(stored.any.wait(), TIMEOUT)
    assert stored.batches == [[one, two]]
    running.cancel()


async def test_the_hurry_is_over_with_what_it_was_for(engine: MemoryEngine) -> None:
    one, two = await leased(engine, 2)
    stored = Stored(engine)
    running = asyncio.create_task(stored.finisher.run())
    stored.finisher.add(one, at_once=True)
    await asyncio.wait_for(stored.any.wait(), TIMEOUT)
    stored.finisher.add(two)
    for _ in range(10):
        await asyncio.sleep(0)
    assert stored.batches == [[one]]
    running.cancel()
