"""Reports on schedules: clocks that are changed twice a year, and workers that were away."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from afterwards.client.ids import randomness
from afterwards.core.schedule import Cron, Missed
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import FakeClock
from afterwards.worker.scheduler import Scheduled, Scheduler

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

MINUTES = timedelta(minutes=1)


async def fires(
    tmp_path: Path, schedule: Cron, begin: datetime, end: datetime, *, step: timedelta = 10 * MINUTES
) -> list[datetime]:
    """For when tasks were stored while two workers looked again and again, in the schedule's zone."""
    clock = FakeClock(begin.astimezone(UTC))

    def call() -> NewTask:
        return NewTask(id=task_id(clock(), randomness.take(10)), name="nightly", arguments="{}")

    scheduled = Scheduled(name="nightly", schedule=schedule, missed=Missed.LATEST, call=call)
    async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
        workers = [Scheduler(engine, lambda: [scheduled], clock=clock) for _ in range(2)]
        while clock() <= end:
            for worker in workers:
                await worker.fire()
            clock.advance(step)
        stored = await engine.find(Query(limit=1000))
    return [at.astimezone(ZoneInfo(schedule.tz)) for at in sorted(task.created_at for task in stored)]


def wall(instants: list[datetime]) -> list[str]:
    return [f"{instant:%d %H:%M %z}" for instant in instants]


async def test_after_the_clocks_went_back_a_weekly_fire_comes_once(tmp_path: Path) -> None:
    """On the day after the end of summer time a task ran at eleven, and again at twelve, when it was due.

    https://github.com/celery/celery/issues/1604
    """
    amsterdam = ZoneInfo("Europe/Amsterdam")
    begin, end = (datetime(2013, 10, day, tzinfo=amsterdam) for day in (26, 30))
    found = await fires(tmp_path, Cron("0 12 * * 1", tz="Europe/Amsterdam"), begin, end)
    assert wall(found) == ["28 12:00 +0100"]


async def test_after_the_clocks_went_forward_a_daily_fire_is_no_hour_late(tmp_path: Path) -> None:
    """On the day when summer time began a daily task ran an hour too late.

    https://github.com/celery/celery/issues/9653
    """
    berlin = ZoneInfo("Europe/Berlin")
    begin, end = (datetime(2025, 3, day, tzinfo=berlin) for day in (29, 31))
    found = await fires(tmp_path, Cron("0 9 * * *", tz="Europe/Berlin"), begin, end)
    assert wall(found) == ["29 09:00 +0100", "30 09:00 +0200"]


async def test_an_hourly_fire_comes_in_both_of_the_hours_with_one_name(tmp_path: Path) -> None:
    """In the hour that comes twice an hourly task ran once.

    https://github.com/celery/celery/issues/10107
    """
    begin, end = datetime(2026, 11, 1, 7, 30, tzinfo=UTC), datetime(2026, 11, 1, 11, 30, tzinfo=UTC)
    found = await fires(tmp_path, Cron("0 * * * *", tz="US/Pacific"), begin, end)
    assert wall(found) == ["01 01:00 -0700", "01 01:00 -0800", "01 02:00 -0800", "01 03:00 -0800"]


async def test_a_fire_in_the_hour_that_is_left_out_is_made_up_for(tmp_path: Path) -> None:
    """A nightly task whose time does not exist on the day when summer time begins was skipped.

    https://github.com/spring-projects/spring-framework/issues/28245
    """
    zurich = ZoneInfo("Europe/Zurich")
    begin, end = (datetime(2022, 3, day, 12, tzinfo=zurich) for day in (26, 28))
    found = await fires(tmp_path, Cron("30 2 * * *", tz="Europe/Zurich"), begin, end)
    assert [instant.day for instant in found] == [27, 28]


async def test_a_fire_that_no_worker_saw_is_made_up_for_once(tmp_path: Path) -> None:
    """A periodic task was not run when nobody was there at its time, although somebody came back.

    https://github.com/coleifer/huey/issues/751
    """
    begin, end = datetime(2023, 6, 1, 11, tzinfo=UTC), datetime(2023, 6, 4, 11, tzinfo=UTC)
    found = await fires(tmp_path, Cron("0 12 * * *"), begin, end, step=timedelta(hours=50))
    assert wall(found) == ["03 13:00 +0000"]
