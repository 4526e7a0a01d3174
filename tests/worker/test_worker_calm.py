"""A living worker is not taken for dead, whatever the clock says and however long the store was away."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from afterwards import State
from afterwards.core.clock_correction import CORRECTION
from afterwards.core.errors import EngineUnavailable
from afterwards.core.options import Options
from afterwards.core.task import Lease, NewTask, Task, task_id
from afterwards.engine import Claim, Heartbeat
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.execution.process_wide import process_wide
from afterwards.tasks.registry import registry
from afterwards.testing.clock import START, FakeClock
from afterwards.worker.maintenance import Maintenance
from face.serving import until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

DAY = timedelta(days=1)
OPTIONS = Options()
PATIENT = OPTIONS.lease.total_seconds() / 2


class Process:
    """The maintenance of one worker, with the clocks of its machine."""

    def __init__(self, engine: SQLiteEngine, clock: FakeClock) -> None:
        self.engine = engine
        self.clock = clock
        self.seconds = 0.0
        self.held: list[Lease] = []
        self.away = False
        self.hurried = 0
        self.maintenance = Maintenance(
            *(engine, registry, OPTIONS),
            make_notice=lambda *_: None,
            notify=lambda *_: None,
            clock=clock,
            steady=lambda: self.seconds,
            leaseholder=self,
            probe=self._write,
            jumped=self._hurry,
        )

    def leases(self) -> list[Lease]:
        return self.held

    async def look(self, *, seconds: float) -> None:
        """Look once a second for so long."""
        for _ in range(int(seconds)):
            self.seconds += 1
            self.clock.advance(1)
            await self.maintenance.reclaim()

    async def task(self, worker: str = "another") -> Task:
        [stored] = await self.engine.enqueue([NewTask(id=task_id(START, os.urandom(10)), name="f", arguments="{}")])
        claim = Claim(worker=worker, limit=1, lease=OPTIONS.lease, names=frozenset({"f"}), ids=frozenset({stored.id}))
        [task] = await self.engine.claim(claim)
        return task

    async def state(self, task: Task) -> State:
        [stored] = await self.engine.get([task.id])
        return stored.state

    async def _write(self) -> None:
        if self.away:
            raise EngineUnavailable("locked")

    def _hurry(self) -> None:
        self.hurried += 1


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    clock = FakeClock()
    async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
        yield Process(engine, clock)


async def test_a_clock_put_forward_by_a_day_leaves_the_living_time_to_renew(process: Process) -> None:
    await process.look(seconds=5)
    task = await process.task()
    process.clock.advance(DAY)
    await process.look(seconds=PATIENT / 2)
    assert await process.state(task) is State.RUNNING
    assert process.hurried == 1
    await process.engine.heartbeat([Heartbeat(task.lease)], lease=OPTIONS.lease)
    await process.look(seconds=PATIENT)
    assert await process.state(task) is State.RUNNING


async def test_a_worker_that_does_not_renew_after_a_jump_is_lost(process: Process) -> None:
    task = await process.task()
    process.clock.advance(DAY)
    await process.look(seconds=PATIENT + 2)
    assert await process.state(task) is State.QUEUED


async def test_what_this_process_holds_is_never_lost(process: Process) -> None:
    process_wide.leaseholders.add(process)
    task = await process.task()
    process.held.append(task.lease)
    process.clock.advance(DAY)
    await process.look(seconds=OPTIONS.lease.total_seconds() * 2)
    assert await process.state(task) is State.RUNNING


async def test_a_store_that_takes_no_writes_declares_nobody_dead(process: Process) -> None:
    await process.look(seconds=PATIENT)
    task = await process.task()
    process.away = True
    for _ in range(2 * int(OPTIONS.lease.total_seconds())):
        try:
            await process.look(seconds=1)
        except EngineUnavailable:
            continue
    process.away = False
    await process.look(seconds=PATIENT / 2)
    assert await process.state(task) is State.RUNNING
    await process.look(seconds=PATIENT)
    assert await process.state(task) is State.QUEUED


async def test_a_silent_worker_is_lost_at_the_end_of_its_lease_in_calm_times(process: Process) -> None:
    task = await process.task()
    await process.look(seconds=OPTIONS.lease.total_seconds() + 1)
    assert await process.state(task) is State.QUEUED


@pytest.mark.parametrize("steps", [[-DAY], [-DAY / 9] * 8], ids=["at once", "in small steps"])
async def test_a_correction_of_the_clock_is_put_right(
    process: Process, caplog: pytest.LogCaptureFixture, steps: list[timedelta]
) -> None:
    await process.look(seconds=1)
    process.clock.advance(DAY)
    await process.look(seconds=1)
    new = NewTask(id=task_id(START, os.urandom(10)), name="f", arguments="{}", wait=timedelta(seconds=10))
    await process.engine.enqueue([new])
    caplog.clear()
    for step in steps:
        process.clock.advance(step)
        await process.look(seconds=1)
    [stored] = await process.engine.get([new.id])
    assert stored.run_at is not None
    assert stored.run_at <= process.clock() + CORRECTION + timedelta(seconds=10)
    assert "it was ahead by more than three hours" in caplog.text


async def test_a_correction_while_no_worker_ran_is_told(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.clock.advance(DAY)
    new = NewTask(id=task_id(START, os.urandom(10)), name="f", arguments="{}", wait=timedelta(seconds=10))
    await process.engine.enqueue([new])
    process.clock.advance(-DAY)
    later = Process(process.engine, process.clock)
    running = asyncio.create_task(later.maintenance.run())
    await until(lambda: "it was ahead by more than three hours" in caplog.text)
    running.cancel()
