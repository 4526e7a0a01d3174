"""The engine in memory."""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from afterwards.core.errors import EngineError
from afterwards.core.task import NewTask
from afterwards.engine import Engine
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.wakeup import Wakeup
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance import EngineConformance
from afterwards.testing.conformance.generated import GeneratedConformance

LONG = timedelta(minutes=10)


class TestMemoryEngine(EngineConformance):
    @pytest.fixture
    def engine(self, clock: FakeClock) -> Engine:
        return MemoryEngine(clock=clock)


class TestMemoryEngineGenerated(GeneratedConformance):
    def open(self, clock: FakeClock) -> AbstractAsyncContextManager[Engine]:
        return MemoryEngine(clock=clock)


@pytest.mark.anyio
async def test_tasks_outlive_the_closing_of_the_engine() -> None:
    engine = MemoryEngine()
    async with engine:
        stored = await engine.enqueue([NewTask(id="1", name="greet", arguments="{}")])
    async with engine:
        assert await engine.get(["1"]) == stored == engine.tasks


class TestWakeup:
    def test_whom_nobody_waits_for_any_more_is_not_told(self) -> None:
        wakeup, loop = Wakeup(), asyncio.new_event_loop()
        waiting = loop.create_task(wakeup.wait(LONG))
        loop.run_until_complete(asyncio.sleep(0))
        waiting.cancel()
        wakeup.set()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(waiting)
        loop.close()

    def test_a_closed_loop_does_not_hinder_the_others(self) -> None:
        wakeup, gone = Wakeup(), asyncio.new_event_loop()
        waiting = gone.create_task(wakeup.wait(LONG))
        gone.run_until_complete(asyncio.sleep(0))
        gone.close()
        wakeup.set()
        asyncio.run(asyncio.wait_for(wakeup.wait(LONG), timeout=5))
        waiting.get_coro().close()

    def test_it_stays_set_until_it_is_cleared(self) -> None:
        wakeup = Wakeup()
        wakeup.set()
        for _ in range(2):
            asyncio.run(asyncio.wait_for(wakeup.wait(LONG), timeout=5))
        wakeup.clear()
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(wakeup.wait(LONG), timeout=0.01))


@pytest.mark.anyio
async def test_tasks_in_memory_cannot_be_copied_to_a_file(tmp_path: Path) -> None:
    async with MemoryEngine() as engine:
        with pytest.raises(EngineError, match="in no file"):
            await engine.backup(tmp_path / "backup.db")
