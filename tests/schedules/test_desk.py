"""``tasks.schedules``: listed, paused, resumed, run now."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from afterwards import Afterwards, NotScheduled, ScheduleRecord, State
from afterwards.core.errors import InvalidOption, UnknownFunction
from afterwards.core.schedule import next_fire
from afterwards.engine import Fire
from face.serving import records, working
from schedules.ticking import nightly, tick, unscheduled

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    async with working(url, worker=False) as tasks:
        yield tasks


async def listed(tasks: Afterwards, name: str = "nightly") -> ScheduleRecord:
    [found] = [one for one in await tasks.schedules.list() if one.name == name]
    return found


async def test_they_are_listed_by_name_before_any_worker_has_seen_them(tasks: Afterwards) -> None:
    names = [one.name for one in await tasks.schedules.list()]
    assert names == sorted(names) and {"nightly", "tick"} <= set(names) and "unscheduled" not in names
    assert nightly.schedule
    assert await listed(tasks) == ScheduleRecord(
        name="nightly",
        expression="0 3 * * *",
        tz="Europe/Rome",
        next_fire=next_fire(nightly.schedule, datetime.now(UTC)),
        last_fire=None,
        paused=False,
    )
    assert ((await listed(tasks, "tick")).expression, (await listed(tasks, "tick")).tz) == ("every 0:00:01", None)


async def test_the_last_fire_and_the_next_one_after_it_are_shown(tasks: Afterwards) -> None:
    engine = await tasks.client.open()
    await engine.register_schedules({"tick": str(tick.schedule)})
    last = datetime(2100, 1, 1, tzinfo=UTC)
    await engine.fire([Fire("tick", last, tick.calls.unlimited_task(tasks.client))])
    shown = await listed(tasks, "tick")
    assert (shown.last_fire, shown.next_fire) == (last, last + timedelta(seconds=1))


async def test_a_paused_schedule_has_no_next_fire_until_it_is_resumed(tasks: Afterwards) -> None:
    await tasks.schedules.pause(nightly)
    shown = await listed(tasks)
    assert (shown.paused, shown.next_fire) == (True, None)
    await tasks.schedules.resume("nightly")
    shown = await listed(tasks)
    assert not shown.paused
    assert shown.next_fire is not None


async def test_a_pause_outlives_the_process_and_holds_for_all(url: str) -> None:
    async with working(url, worker=False) as tasks:
        await tasks.schedules.pause(nightly)
    async with working(url, worker=False) as tasks:
        assert (await listed(tasks)).paused


async def test_run_now_stores_a_task_whatever_the_schedule_says(tasks: Afterwards) -> None:
    await tasks.schedules.pause(nightly)
    handle = await tasks.schedules.run_now(nightly)
    record = await handle.status()
    assert (record.name, record.state, record.queue, record.arguments) == ("nightly", State.QUEUED, "reports", {})
    assert (await listed(tasks)).last_fire is None
    assert [task.id for task in await records(tasks)] == [handle.id]
    assert (await (await tasks.schedules.run_now("nightly")).status()).name == "nightly"


async def test_run_now_stores_it_where_it_was_asked_for(url: str, tasks: Afterwards) -> None:
    async with working("memory://another", worker=False) as another:
        handle = await another.schedules.run_now(nightly)
        assert [task.id for task in await records(another)] == [handle.id]
    assert await records(tasks) == []


@pytest.mark.parametrize("doing", ["pause", "resume", "run_now"])
async def test_what_has_no_schedule_is_refused(tasks: Afterwards, doing: str) -> None:
    do: Any = getattr(tasks.schedules, doing)
    for wrong in (unscheduled, "unscheduled"):
        with pytest.raises(NotScheduled, match=r'"unscheduled" has no schedule.*@task\(cron='):
            await do(wrong)
    with pytest.raises(UnknownFunction, match='"nobody"'):
        await do("nobody")
    with pytest.raises(InvalidOption, match="is no task function: give one, or its name"):
        await do(print)
