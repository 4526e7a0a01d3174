"""``@task(cron=...)`` and ``@task(every=...)``: what they make, and what they refuse."""

from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import task
from afterwards.core.errors import InvalidOption, InvalidTaskFunction
from afterwards.core.schedule import Cron, Every, Missed
from schedules.ticking import greeting, nightly, tick, unscheduled


def test_the_schedule_lives_on_the_task_function() -> None:
    assert (nightly.schedule, nightly.missed) == (Cron("0 3 * * *", "Europe/Rome"), Missed.LATEST)
    assert tick.schedule == Every(timedelta(seconds=1))
    assert unscheduled.schedule is None


def test_the_other_options_stay_what_they_are() -> None:
    assert (nightly.settings.queue, nightly.settings.priority) == ("reports", 7)


def test_a_copy_with_other_options_keeps_the_schedule() -> None:
    assert nightly.options(priority=1).schedule == nightly.schedule


def test_a_schedule_belongs_to_the_function_and_to_no_call() -> None:
    for settings in ({"cron": "0 3 * * *"}, {"every": 5}, {"tz": "UTC"}, {"missed": "all"}):
        with pytest.raises(InvalidOption, match="is for a function"):
            unscheduled.options(**settings)  # type: ignore[arg-type]


def test_a_wrong_schedule_is_refused_before_there_is_a_function() -> None:
    with pytest.raises(InvalidOption, match="cron='daily'"):
        task(cron="daily")
    with pytest.raises(InvalidOption, match="run_at is given, but a schedule sets the times"):
        task(every=60, run_at=nightly_at())


def nightly_at() -> Any:
    from datetime import UTC, datetime

    return datetime(2026, 1, 1, tzinfo=UTC)


def test_a_function_that_needs_arguments_is_refused_at_once() -> None:
    with pytest.raises(
        InvalidTaskFunction, match=r"needs_two: a schedule calls it without arguments, so it is missing .*'one'"
    ):

        @task(every=60)
        async def needs_two(one: int, *, two: int) -> None: ...


def test_defaults_and_dependencies_are_fine() -> None:
    @task(every=3600)
    async def has_all(one: int = 1, *more: int, how: Annotated[str, Depends(greeting)], **others: int) -> None: ...

    assert has_all.codec.dump((), {}) == "{}"
