"""The worker fires what is due, and nothing twice."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest

from afterwards import Afterwards, State
from afterwards.client.ids import randomness
from afterwards.core.errors import EngineUnavailable
from afterwards.core.schedule import Every, Missed
from afterwards.core.task import NewTask, Task, task_id
from afterwards.engine import Fire, Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import START, FakeClock
from afterwards.web import embedded_worker, runners
from afterwards.worker.parts import SCHEDULING
from afterwards.worker.scheduler import Scheduled, Scheduler
from face.serving import records, until, until_async, working
from schedules import ticking
from schedules.looking import fired
from schedules.ticking import nightly

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    ticking.said.clear()
    yield
    ticking.said.clear()


def call() -> NewTask:
    return NewTask(id=task_id(datetime.now(UTC), randomness.take(10)), name="hourly", arguments="{}")


HOURLY = Scheduled(name="hourly", schedule=Every(HOUR), missed=Missed.LATEST, call=call)


class Moody(MemoryEngine):
    """Away when it is asked to fire for the first time, although it does what it was asked."""

    answers = False

    async def fire(self, fires: list[Fire]) -> list[Task]:  # type: ignore[override]
        stored = await super().fire(fires)
        if fires and not self.answers:
            self.answers = True
            raise EngineUnavailable("away")
        return stored


async def hours_after(engine: MemoryEngine, clock: FakeClock, scheduled: Scheduled, hours: int) -> int:
    """How many tasks there are when a worker looks again after so many hours."""
    scheduler = Scheduler(engine, lambda: [scheduled], clock=clock)
    await scheduler.fire()
    clock.advance(hours * HOUR)
    await scheduler.fire()
    return len(engine.tasks)


@pytest.mark.parametrize(("missed", "tasks"), [(Missed.LATEST, 1), (Missed.ALL, 5), (Missed.SKIP, 0)])
async def test_the_policy_says_what_is_made_up_for(missed: Missed, tasks: int) -> None:
    clock = FakeClock(START + HOUR / 2)
    assert await hours_after(MemoryEngine(clock=clock), clock, replace(HOURLY, missed=missed), 5) == tasks


async def test_at_the_first_sight_nothing_is_made_up_for() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    assert await Scheduler(engine, lambda: [HOURLY], clock=clock).fire() == START + timedelta(seconds=5)
    assert engine.tasks == []


async def test_a_changed_schedule_begins_anew() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    await Scheduler(engine, lambda: [HOURLY], clock=clock).fire()
    clock.advance(5 * HOUR)
    changed = replace(HOURLY, schedule=Every(2 * HOUR))
    await Scheduler(engine, lambda: [changed], clock=clock).fire()
    assert engine.tasks == []


async def test_any_number_of_schedulers_fire_once() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    schedulers = [Scheduler(engine, lambda: [HOURLY], clock=clock) for _ in range(5)]
    for _ in range(3):
        await asyncio.gather(*(scheduler.fire() for scheduler in schedulers))
        clock.advance(HOUR)
    assert len(engine.tasks) == 2


async def test_of_many_missed_fires_all_are_made_up_for_in_several_writes() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    scheduler = Scheduler(engine, lambda: [replace(HOURLY, missed=Missed.ALL)], clock=clock)
    await scheduler.fire()
    clock.advance(250 * HOUR)
    counts = []
    while await scheduler.fire() <= clock():
        counts.append(len(engine.tasks))
    assert [*counts, len(engine.tasks)] == [100, 200, 250]


async def test_a_paused_schedule_fires_nothing_and_keeps_nobody_busy() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    scheduler = Scheduler(engine, lambda: [replace(HOURLY, missed=Missed.ALL)], clock=clock)
    await scheduler.fire()
    await engine.pause(Paused(schedules=frozenset({"hourly"})))
    clock.advance(500 * HOUR)
    assert await scheduler.fire() > clock()
    await engine.resume(Paused(schedules=frozenset({"hourly"})))
    assert await scheduler.fire() > clock()
    assert engine.tasks == []


async def test_a_clock_that_is_put_back_doubles_nothing() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    scheduler = Scheduler(engine, lambda: [HOURLY], clock=clock)
    for step in (0, 1, -1, 1, -1, 1):
        clock.advance(step * HOUR)
        await scheduler.fire()
    assert len(engine.tasks) == 1


async def test_a_fire_whose_answer_was_lost_is_not_repeated() -> None:
    clock = FakeClock()
    engine = Moody(clock=clock)
    scheduler = Scheduler(engine, lambda: [HOURLY], clock=clock)
    await scheduler.fire()
    clock.advance(HOUR)
    running = asyncio.ensure_future(scheduler.run())
    await until(lambda: engine.answers)
    clock.advance(HOUR)
    await until(lambda: len(engine.tasks) == 2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(await engine.find(Query())) == 2


async def test_a_store_that_was_replaced_is_told_anew() -> None:
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    scheduler = Scheduler(engine, lambda: [HOURLY], clock=clock)
    await scheduler.fire()
    engine.__init__(clock=clock)  # type: ignore[misc]
    await scheduler.fire()
    assert [one.name for one in await engine.register_schedules({})] == ["hourly"]


async def test_what_is_passed_over_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "afterwards")
    clock = FakeClock(START + HOUR / 2)
    engine = MemoryEngine(clock=clock)
    scheduler = Scheduler(engine, lambda: [replace(HOURLY, missed=Missed.SKIP)], clock=clock)
    await scheduler.fire()
    clock.advance(3 * HOUR)
    for _ in range(3):
        await scheduler.fire()
    [line] = [line for line in caplog.messages if line.startswith("schedule:")]
    assert "hourly" in line and "none of them" in line


# With a worker in an application's lifespan.


async def named(tasks: Afterwards, name: str) -> list[Task]:
    return [task for task in await records(tasks) if task.name == name]


async def test_a_worker_runs_it_once_for_each_second(url: str) -> None:
    async with working(url, grace=0) as tasks:
        await until(lambda: ticking.said.count("tick") >= 3)
        ticks = await named(tasks, "tick")
        [row] = [one for one in await tasks.schedules.list() if one.name == "tick"]
    assert {task.origin for task in ticks} == {"schedule every 0:00:01"}
    assert row.last_fire is not None
    assert row.last_fire.microsecond == 0


async def test_two_workers_on_one_file_fire_each_second_once(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with working(url, grace=0), working(url, grace=0):
        await until(lambda: "overlap began" in ticking.said)
        begun, before = fired(path, "overlap")
        await until(lambda: fired(path, "overlap")[0] >= begun + 3)
        ended, after = fired(path, "overlap")
    assert after - before == ended - begun


async def test_each_fire_is_a_task_of_its_own_while_the_one_before_runs(url: str) -> None:
    async with working(url, grace=0) as tasks:
        await until(lambda: ticking.said.count("overlap began") >= 2)
        running = [task for task in await named(tasks, "overlap") if task.state is State.RUNNING]
        assert len(running) >= 2


async def test_a_fire_is_retried_as_any_task_is_and_its_dependencies_are_filled(url: str) -> None:
    async with working(url, grace=0) as tasks:

        async def succeeded() -> Task | None:
            return next((task for task in await named(tasks, "stumble") if task.state is State.SUCCEEDED), None)

        task = await until_async(succeeded)
    assert task is not None and (task.attempt, task.failed, task.result) == (2, 1, '"default"')
    assert ticking.said.count("stumble injected default") >= 2


async def test_what_is_run_now_runs_at_once(url: str) -> None:
    async with working(url, grace=0) as tasks:
        assert await (await tasks.schedules.run_now(nightly)).result(timeout=10) == "today"
    assert ticking.said.count("nightly today") == 1


async def test_a_draining_worker_fires_no_more(url: str) -> None:
    async with working(url, grace=20) as tasks:
        await until(lambda: "overlap began" in ticking.said)
        drain()
        before, drained = len(await records(tasks)), monotonic()
        await until(lambda: monotonic() > drained + 2.1)  # two fires would have come
        assert len(await records(tasks)) == before
        drain()  # a second signal: what runs is not waited for


def drain() -> None:
    for runner in runners.everyone():  # tests before this one may have left some that run nothing
        runner.drain()


async def test_a_worker_without_a_schedule_starts_nothing_for_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def schedulers() -> list[str]:
        return [name for one in asyncio.all_tasks() if (name := one.get_name()) == SCHEDULING]

    async with working(url, grace=0):
        assert schedulers() == [SCHEDULING]
    monkeypatch.setattr(embedded_worker, "timetable", lambda client: tuple)
    async with working(url, grace=0):
        assert schedulers() == []


@pytest.mark.parametrize("kind", [ValueError, GeneratorExit, SystemExit, asyncio.CancelledError])
async def test_a_call_that_cannot_be_made_keeps_no_other_schedule_waiting(kind: type[BaseException]) -> None:
    def cannot_be_made() -> NewTask:
        raise kind("from the function of a key")

    clock = FakeClock(START + HOUR / 2)
    engine = MemoryEngine(clock=clock)
    both = [replace(HOURLY, name="broken", call=cannot_be_made), HOURLY]
    scheduler = Scheduler(engine, lambda: both, clock=clock)
    await scheduler.fire()
    clock.advance(HOUR)
    await scheduler.fire()
    assert len(engine.tasks) == 1
