"""A clock that was put back."""

from datetime import datetime, timedelta

import pytest

from afterwards.core import lifecycle, schedule
from afterwards.core.clock_correction import CORRECTION, corrected
from afterwards.core.limits import Limit, Rate, Used, room
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import State, Task
from afterwards.testing.clock import START

NOW = START
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def task(**fields: object) -> Task:
    return Task(**{"id": "1", "name": "f", "arguments": "{}", "created_at": NOW, "state": State.SCHEDULED} | fields)  # type: ignore[arg-type]


def test_a_step_back_of_more_than_three_hours_is_a_correction_and_a_smaller_one_is_not() -> None:
    assert corrected(NOW + CORRECTION, NOW) == NOW + CORRECTION
    assert corrected(NOW + CORRECTION + MINUTE, NOW) == NOW


@pytest.mark.parametrize(("ahead", "left"), [(DAY, 1), (CORRECTION, 0)])
def test_a_rate_forgets_starts_of_a_time_that_never_was(ahead: timedelta, left: int) -> None:
    assert room(Limit(rate=Rate(1, MINUTE)), Used(starts=[NOW + ahead]), NOW).count == left


def test_a_schedule_goes_on_from_the_new_time() -> None:
    ahead = StoredSchedule(name="f", expression="every", after=NOW + DAY)
    assert schedule.put_right(ahead, NOW).after == NOW
    assert schedule.resumed(schedule.paused(ahead), NOW).after == NOW


def test_a_delay_begins_anew_and_an_instant_of_the_caller_stays() -> None:
    waiting = task(run_at=NOW + DAY + MINUTE, created_at=NOW + DAY)
    assert lifecycle.put_right(waiting, NOW + DAY, NOW, MINUTE).run_at == NOW + MINUTE
    assert lifecycle.put_right(waiting, None, NOW, MINUTE).run_at == waiting.run_at


def test_expiry_and_leases_go_on_from_the_new_time() -> None:
    running = task(state=State.RUNNING, created_at=NOW + DAY, expires_at=NOW + DAY + MINUTE, lease_until=NOW + DAY)
    right = lifecycle.put_right(running, None, NOW, MINUTE)
    assert (right.created_at, right.expires_at, right.lease_until) == (NOW, NOW + MINUTE, NOW + MINUTE)


@pytest.mark.parametrize("started_at", [NOW + DAY, NOW, None])
def test_a_task_that_ended_while_the_clock_was_ahead_ended_now(started_at: datetime | None) -> None:
    ended = task(state=State.SUCCEEDED, created_at=NOW + DAY, started_at=started_at, finished_at=NOW + DAY)
    right = lifecycle.put_right(ended, None, NOW, MINUTE)
    assert (right.created_at, right.started_at, right.finished_at) == (NOW, started_at and NOW, NOW)


def test_what_the_clock_did_not_touch_stays() -> None:
    ended = task(state=State.SUCCEEDED, started_at=NOW, finished_at=NOW + CORRECTION)
    for one in (task(run_at=NOW + DAY), ended, task(state=State.FAILED)):
        assert lifecycle.put_right(one, one.created_at if one.run_at else None, NOW, MINUTE) == one
