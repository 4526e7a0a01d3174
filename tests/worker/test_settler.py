"""When the ends of attempts are stored: together with others, unless something waits for one of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from afterwards.core.lifecycle import Settled
from afterwards.core.task import NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine
from afterwards.execution.health import Health
from afterwards.worker import chain_lengths, finisher
from afterwards.worker.chain_lengths import Links
from afterwards.worker.finisher import Settler

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

PATIENCE = 10.0
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Stored:
    """A settler at work, and what it has stored."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.batches: list[Sequence[Settled]] = []
        self.any = asyncio.Event()
        self.settler = Settler(engine, self.note, Health())

    def note(self, batch: Sequence[Settled]) -> None:
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


async def test_an_end_that_something_waits_for_does_not_linger(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finisher, "LINGER", 1e9)  # seconds: what lingers is never stored
    one, two = await leased(engine, 2)
    stored = Stored(engine)
    running = asyncio.create_task(stored.settler.run())
    stored.settler.add(one)
    for _ in range(3):
        await asyncio.sleep(0)
    assert stored.batches == []
    stored.settler.add(two, at_once=True)
    await asyncio.wait_for(stored.any.wait(), PATIENCE)
    assert stored.batches == [[one, two]]
    running.cancel()


async def test_the_hurry_is_over_with_what_it_was_for(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finisher, "LINGER", 1e9)
    one, two = await leased(engine, 2)
    stored = Stored(engine)
    running = asyncio.create_task(stored.settler.run())
    stored.settler.add(one, at_once=True)
    await asyncio.wait_for(stored.any.wait(), PATIENCE)
    stored.settler.add(two)
    for _ in range(10):
        await asyncio.sleep(0)
    assert stored.batches == [[one]]
    running.cancel()


def a_task(after: str | None = None) -> Task:
    id = str(uuid4())
    return Task(id=id, name="f", arguments="{}", created_at=NOW, state=State.RUNNING, after=after)


def ended(counted: Links, count: int) -> list[bool]:
    """Of a chain of so many tasks that end here, which are taken for the middle of a long one."""
    found, before = [], None
    for _ in range(count):
        task = a_task(before)
        found.append(counted.is_long(task))
        before = task.id
    return found


def test_from_its_third_task_on_a_chain_is_long() -> None:
    assert ended(Links(), 5) == [False, False, True, True, True]


def test_tasks_behind_none_are_no_chain() -> None:
    counted = Links()
    assert not any(counted.is_long(a_task()) for _ in range(10))


def test_a_chain_that_began_elsewhere_is_counted_from_where_it_came() -> None:
    counted = Links()
    first = a_task(after=str(uuid4()))
    second = a_task(after=first.id)
    assert [counted.is_long(first), counted.is_long(second)] == [False, True]


def test_only_so_many_chains_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_lengths, "MOST_REMEMBERED", 2)
    counted = Links()
    seconds = [a_task(after=str(uuid4())) for _ in range(3)]
    for second in seconds:
        counted.is_long(second)
    thirds = [counted.is_long(a_task(after=second.id)) for second in reversed(seconds)]
    assert thirds == [True, True, False]
