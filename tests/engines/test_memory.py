"""The engine in memory."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards
from afterwards.core import dispatching, lifecycle
from afterwards.core.claim import Paused
from afterwards.core.errors import EngineError
from afterwards.core.retry import Retry
from afterwards.core.settling import SUCCEEDED, settle
from afterwards.core.storing import Key, KeyKind, keys_of
from afterwards.core.task import NewTask, State, Task
from afterwards.engine import Claim, Engine
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.memory.tasks import Lane, Tasks
from afterwards.engines.wakeup import Wakeup
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance import EngineConformance
from afterwards.testing.conformance.generated import GeneratedConformance

LONG = timedelta(minutes=10)


class TestMemoryEngine(EngineConformance):
    @pytest.fixture
    def engine(self, clock: FakeClock) -> Engine:
        return MemoryEngine(clock=clock)


class ScannedTasks(Tasks):
    """Finds everything by looking at all tasks: what the indexes must find, too."""

    def with_key(self, key: Key) -> Task | None:
        return next((task for task in self._all if key in keys_of(task) and self._has(task, key)), None)

    def _has(self, task: Task, key: Key) -> bool:
        return key.kind is KeyKind.IDEMPOTENCY or not task.state.finished

    def behind(self, ids: Iterable[str], wanted: Callable[[Task], bool]) -> list[Task]:
        before, found = {*ids}, []
        for task in self._all:
            if task.after in before and wanted(task):
                before.add(task.id)
                found.append(task)
        return found

    @property
    def running(self) -> list[Task]:
        return [task for task in self._all if task.state is State.RUNNING]

    @property
    def queued(self) -> Iterator[Task]:
        return (task for task in self._all if task.state is State.QUEUED and task.set_aside is None)

    def claimable(self, now: datetime) -> list[tuple[Task, datetime]]:
        queued = [(task, self.queued_since[task.id]) for task in self.queued]
        return queued + [(task, task.run_at) for task in self.due(now) if task.run_at]

    def due(self, now: datetime) -> list[Task]:
        return [task for task in self._all if task.state is State.SCHEDULED and task.run_at and task.run_at <= now]

    def overdue(self, now: datetime) -> list[Task]:
        return [task for task in self._all if lifecycle.overdue(task, now)]

    def over(self, now: datetime, limit: int) -> list[str]:
        over = (task.id for task in self._all if task.finished_at and now - task.finished_at >= task.retention)
        return list(islice(over, limit))

    def waiting_in(self, queue: str) -> int:
        pending = [task for task in self._all if task.state.pending and task.set_aside is None]
        return sum(task.queue == queue for task in pending)

    def lanes(self, claim: Claim, paused: Paused) -> list[Lane]:
        served = (task for task in self.queued if not paused.stops(task) and replace(claim, ids=None).serves(task))
        return [*{Lane(task.queue, task.name, task.limit_key) for task in served}]

    def first(self, lanes: Iterable[Lane], claim: Claim) -> Iterator[Task]:
        wanted = {*lanes}
        found = [task for task in self.queued if Lane(task.queue, task.name, task.limit_key) in wanted]
        if claim.ids is not None:
            found = [task for task in found if task.id in claim.ids]
        if claim.starts is not None:
            found = [task for task in found if dispatching.dispatch_of(task).lease in claim.starts]
        return iter(sorted(found, key=lambda task: -task.priority))

    @property
    def _all(self) -> list[Task]:
        return [*self.by_id.values()]


class Scanning(MemoryEngine):
    """An engine without indexes."""

    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self._tasks = ScannedTasks()


class TestMemoryEngineGenerated(GeneratedConformance):
    def open(self, clock: FakeClock) -> AbstractAsyncContextManager[Engine]:
        return MemoryEngine(clock=clock)

    def reference(self, clock: FakeClock) -> Engine:
        return Scanning(clock=clock)


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
    tasks = Afterwards(FastAPI(), "memory://")
    with pytest.raises(EngineError, match="tasks in memory:// are in no file"):
        await tasks.backup(tmp_path / "backup.db")


@pytest.mark.anyio
async def test_what_was_pruned_or_is_not_due_any_more_is_in_no_index() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    call = {"name": "greet", "arguments": "{}", "unique_key": "k", "idempotency_key": "k", "retention": LONG}
    await engine.enqueue([NewTask(id="1", wait=LONG * 2, **call)])  # type: ignore[arg-type]
    await engine.cancel(["1"], "no")
    clock.advance(LONG)
    await engine.wait(timedelta())
    assert await engine.prune(10) == 1
    [stored] = await engine.enqueue([NewTask(id="2", **call)])  # type: ignore[arg-type]
    assert (stored.id, stored.state) == ("2", State.QUEUED)


def test_a_task_costs_no_more_where_there_are_many() -> None:
    few, many = steps_for_each(100), steps_for_each(800)
    assert many < few * 1.5, (few, many)


def steps_for_each(count: int) -> float:
    """How many instructions of the interpreter each task takes that is stored, claimed and finished beside others."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    async def work() -> None:
        engine = MemoryEngine()
        for number in range(count):
            name, key = f"f{number % 3}", f"{number}"
            new = NewTask(id=key, name=name, arguments="{}", unique_key=key, idempotency_key=key, max_queued=count)
            await engine.enqueue([new])
        await engine.enqueue([NewTask(id=f"w{n}", name="f0", arguments="{}", wait=LONG) for n in range(count)])
        claim = Claim(worker="w", limit=10, lease=LONG, names=frozenset({"f0", "f1", "f2"}))
        while tasks := await engine.claim(claim):
            settled = [settle(task, SUCCEEDED, Retry(0), worker="w", now=START, random=0.5) for task in tasks]
            assert await engine.finish(settled) == []
        await engine.prune(10)

    before = sys.gettrace()  # of whoever measures coverage
    sys.settrace(trace)
    try:
        work_alone(work())
    finally:
        sys.settrace(before)
    return steps / count


def work_alone(work: Coroutine[Any, Any, None]) -> None:
    with suppress(StopIteration):
        work.send(None)
