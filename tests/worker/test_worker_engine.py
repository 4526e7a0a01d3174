"""The worker and its engine: few writes for many tasks, and patience when the engine is away."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest

from afterwards import State, engines
from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, NewTask, Task
from afterwards.engine import Claim, Heartbeat, Held
from afterwards.engines.memory import MemoryEngine
from afterwards.worker import claimer
from face.diary import note, take
from face.serving import finished, records, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class Engine(MemoryEngine):
    """Counts, and is away or broken when it is told to be."""

    trouble: Exception | None = None

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[int] = []
        self.tried = 0

    def _work(self) -> None:
        self.tried += 1
        if self.trouble is not None:
            raise self.trouble

    async def claim(self, claim: Claim) -> list[Task]:
        self._work()
        return await super().claim(claim)

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        self._work()
        self.finished.append(len(settled))
        return await super().finish(settled)

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        self._work()
        return await super().heartbeat(beats, lease=lease)

    async def expired(self, limit: int) -> list[Task]:
        self._work()
        return await super().expired(limit)

    async def prune(self, limit: int) -> int:
        self._work()
        return await super().prune(limit)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    with engines.replaced(lambda url: engine):
        yield engine


async def test_tasks_that_end_together_are_stored_together(engine: Engine, said: list[str]) -> None:
    async with working("memory://", concurrency=100) as tasks:
        for _ in range(100):
            await take.enqueue(0.05)
        await until_async(lambda: all_finished(tasks, 100))
    assert sum(engine.finished) == 100
    assert len(engine.finished) < 20


@pytest.mark.parametrize("trouble", [EngineUnavailable("away"), EngineError("broken"), RuntimeError("a bug of ours")])
async def test_it_goes_on_when_the_engine_does(engine: Engine, said: list[str], trouble: Exception) -> None:
    async with working("memory://", lease=0.3):
        handle = await take.enqueue(0.1, "before")
        await until(lambda: said)
        engine.trouble = trouble
        await until(lambda: "before ended" in said and engine.tried > 5)
        engine.trouble = None
        assert await (await note.enqueue("after")).result(timeout=10) == "after"
        assert (await finished(handle)).state is State.SUCCEEDED


async def test_it_ends_in_time_although_the_engine_is_away(engine: Engine, said: list[str]) -> None:
    async with working("memory://", grace=0.2):
        await take.enqueue(60, "long")
        await until(lambda: said)
        engine.trouble = EngineUnavailable("away")
        begun = monotonic()
    assert monotonic() - begun < 8


async def test_hundreds_of_tasks_through_few_slots(url: str, said: list[str]) -> None:
    async with working(url, concurrency=3) as tasks:
        handles = await asyncio.gather(*(note.enqueue(str(number)) for number in range(300)))
        await until_async(lambda: all_finished(tasks, 100))
        assert [await handle.result(timeout=10) for handle in handles] == [str(number) for number in range(300)]
        assert {task.attempt for task in await records(tasks)} == {1}
    assert len(said) == 300


async def test_what_is_past_its_retention_is_deleted(url: str, said: list[str]) -> None:
    async with working(url):
        await finished(await note.enqueue("kept"))
        await finished(await note.options(retention=0.001).enqueue("dropped"))
    async with working(url) as tasks:  # pruned at the start, and every minute
        await until_async(lambda: only_kept(tasks))


async def only_kept(tasks: Any) -> bool:
    return [task.arguments for task in await records(tasks)] == ['{"text":"kept"}']


async def all_finished(tasks: Any, count: int) -> bool:
    found = await records(tasks)
    return len(found) >= count and all(task.state.finished for task in found)


async def test_the_next_suspect_starts_when_the_one_before_it_has_ended(
    engine: Engine, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine wakes a worker for that: it would sleep on."""
    monkeypatch.setattr(claimer, "LONGEST_WAIT", timedelta(hours=1))
    await engine.enqueue([NewTask(id=f"suspect {n}", name="note", arguments=f'{{"text": "{n}"}}') for n in range(3)])
    lost = Claim(worker="dead", limit=3, lease=timedelta(milliseconds=1), names=frozenset({"note"}))
    assert len(await engine.claim(lost)) == 3
    async with working("memory://"):
        await until(lambda: len(said) == 3)
        await until_async(lambda: all_succeeded(engine))
    assert [(task.attempt, task.suspect) for task in engine.tasks] == [(2, False)] * 3


async def all_succeeded(engine: Engine) -> bool:
    return all(task.state is State.SUCCEEDED for task in engine.tasks)
