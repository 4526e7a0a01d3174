"""When schedules fire, and what becomes of what was missed."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterwards.core.errors import InvalidOption, NotScheduled
from afterwards.core.schedule import (
    LATE_LIMIT,
    MOST_AT_ONCE,
    Cron,
    Every,
    Missed,
    Schedule,
    StoredSchedule,
    due,
    fires,
    latest_fire,
    moved,
    next_fire,
    of_text,
    wanted,
)

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

EXPRESSIONS = [
    "0 3 * * *",
    "30 2 * * *",
    "0,30 2,3 * * *",
    "*/30 * * * *",
    "15 */2 * * *",
    "*/15 0 * * SUN",
    "7 7 1 * MON",
    "0 0 L * *",
    "30 30 */3 * * *",
]
ZONES = ["UTC", "Europe/Rome", "America/New_York", "America/Havana", "Asia/Beirut", "Asia/Kolkata", "Africa/Casablanca"]

schedules = st.one_of(
    st.builds(Cron, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
    st.builds(Every, st.timedeltas(min_value=HOUR, max_value=400 * HOUR)),
)


def several(least: int, most: int) -> st.SearchStrategy[list[datetime]]:
    """Instants, in any order, near a day on which most of the zones change their clocks."""
    days = st.sampled_from([datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)])
    spans = st.lists(
        st.timedeltas(min_value=timedelta(days=-3), max_value=timedelta(days=5)), min_size=least, max_size=most
    )
    return st.builds(lambda day, spans: [day + span for span in spans], days, spans)


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type, misc]


def hours(schedule: Schedule, day: datetime) -> list[str]:
    """The fires of two days, in UTC."""
    return [f"{at:%d %H:%M}" for at in fires(schedule, day, day + timedelta(days=2))]


@unhurried
@given(schedules, several(3, 3))
def test_a_stretch_of_time_fires_what_its_parts_fire(schedule: Schedule, instants: list[datetime]) -> None:
    a, b, c = sorted(instants)
    whole = list(fires(schedule, a, c))
    assert whole == [*fires(schedule, a, b), *fires(schedule, b, c)]
    assert whole == sorted(set(whole))
    assert all(a < at <= c and at.tzinfo is UTC for at in whole)


@unhurried
@given(schedules, several(2, 2))
def test_the_latest_fire_is_the_last_of_them(schedule: Schedule, instants: list[datetime]) -> None:
    after, until = sorted(instants)
    assert latest_fire(schedule, after, until) == max(fires(schedule, after, until), default=None)


@unhurried
@given(schedules, several(1, 1))
def test_the_next_fire_is_the_first_after_an_instant(schedule: Schedule, instants: list[datetime]) -> None:
    [after] = instants
    at = next_fire(schedule, after)
    assert at > after
    assert list(fires(schedule, after, at)) == [at]


@unhurried
@given(schedules, st.sampled_from(Missed), several(1, 6))
def test_no_fire_is_due_twice_whenever_one_looks(schedule: Schedule, missed: Missed, looks: list[datetime]) -> None:
    """The looks come in any order, as those of a clock that is put back."""
    after, fired = min(looks), list[datetime]()
    for now in looks:
        found = due(schedule, missed, after, now)
        assert set(found.fires) <= set(fires(schedule, after, now))
        fired += found.fires
        after = max([after, *found.fires])
        assert found.next > after
    assert fired == sorted(set(fired))


@unhurried
@given(schedules, several(2, 2))
def test_all_leaves_none_out(schedule: Schedule, instants: list[datetime]) -> None:
    begin, end = sorted(instants)
    after, fired, next = begin, list[datetime](), begin
    while next <= end:
        found = due(schedule, Missed.ALL, after, end)
        assert len(found.fires) <= MOST_AT_ONCE
        fired += found.fires
        after, next = max([after, *found.fires]), found.next
    assert fired == list(fires(schedule, begin, end))


def test_every_fires_at_multiples_of_its_span_whenever_it_began() -> None:
    assert next_fire(Every(90 * SECOND), NOON + SECOND) == NOON + 90 * SECOND
    assert next_fire(Every(90 * SECOND), NOON) == NOON + 90 * SECOND
    assert next_fire(Every(90 * SECOND), NOON - timedelta(microseconds=1)) == NOON
    assert next_fire(Every(timedelta(days=7)), utc(1970, 1, 2)) == utc(1970, 1, 8)


def test_a_cron_expression_is_read_by_the_clock_of_its_zone() -> None:
    assert next_fire(Cron("0 3 * * *"), NOON) == utc(2026, 1, 2, 3)
    assert next_fire(Cron("0 3 * * *", "Europe/Rome"), NOON) == utc(2026, 1, 2, 2)
    assert next_fire(Cron("0 3 * * *", "Europe/Rome"), utc(2026, 7, 1, 12)) == utc(2026, 7, 2, 1)


def test_six_fields_begin_with_the_second() -> None:
    assert next_fire(Cron("*/20 * * * * *"), NOON + SECOND) == NOON + 20 * SECOND


def test_in_spring_a_fixed_time_that_the_clock_skips_comes_right_after_the_gap() -> None:
    assert hours(Cron("30 2 * * *", "Europe/Rome"), utc(2026, 3, 28)) == ["28 01:30", "29 01:00"]
    assert hours(Cron("30 3 * * *", "Europe/Rome"), utc(2026, 3, 28)) == ["28 02:30", "29 01:30"]
    assert hours(Cron("0,59 2 * * *", "Europe/Rome"), utc(2026, 3, 28, 12)) == ["29 01:00", "30 00:00", "30 00:59"]


def test_in_autumn_a_fixed_time_that_the_clock_shows_twice_fires_the_first_time() -> None:
    assert hours(Cron("30 2 * * *", "Europe/Rome"), utc(2026, 10, 24)) == ["24 00:30", "25 00:30"]
    assert list(fires(Cron("30 2 * * *", "Europe/Rome"), utc(2026, 10, 25, 1, 10), utc(2026, 10, 25, 20))) == []


@pytest.mark.parametrize(("day", "local"), [(utc(2026, 3, 28, 23), 46), (utc(2026, 10, 24, 22), 50)])
def test_each_half_hour_is_fired_in_spring_and_autumn_none_doubled(day: datetime, local: int) -> None:
    """The day of the change has 23 hours in spring, and 25 in autumn."""
    found = list(fires(Cron("*/30 * * * *", "Europe/Rome"), day, day + local * HOUR / 2))
    assert found == [day + n * HOUR / 2 for n in range(1, local + 1)]


def test_of_many_missed_fires_the_latest_is_made_up_for() -> None:
    found = due(Every(MINUTE), Missed.LATEST, NOON, NOON + 1000 * HOUR + SECOND)
    assert found.fires == (NOON + 1000 * HOUR,)
    assert found.next == NOON + 1000 * HOUR + MINUTE
    assert found.passed_over


def test_all_makes_up_for_so_many_at_once_and_then_for_the_others() -> None:
    found = due(Every(MINUTE), Missed.ALL, NOON, NOON + 1000 * MINUTE)
    assert found.fires == tuple(NOON + n * MINUTE for n in range(1, MOST_AT_ONCE + 1))
    assert found.next == NOON + (MOST_AT_ONCE + 1) * MINUTE
    assert not found.passed_over


@pytest.mark.parametrize(("late", "fired"), [(SECOND, True), (LATE_LIMIT - SECOND, True), (LATE_LIMIT + SECOND, False)])
def test_skip_makes_up_for_what_is_late_and_not_for_what_was_missed(late: timedelta, fired: bool) -> None:
    found = due(Every(HOUR), Missed.SKIP, NOON, NOON + HOUR + late)
    assert found.fires == ((NOON + HOUR,) if fired else ())
    assert found.passed_over is not fired
    assert found.next == NOON + 2 * HOUR


@pytest.mark.parametrize("missed", Missed)
def test_what_is_not_due_waits(missed: Missed) -> None:
    found = due(Every(HOUR), missed, NOON, NOON + HOUR - SECOND)
    assert (found.fires, found.next, found.passed_over) == ((), NOON + HOUR, False)


@pytest.mark.parametrize("missed", Missed)
def test_what_is_due_fires(missed: Missed) -> None:
    found = due(Every(HOUR), missed, NOON, NOON + HOUR)
    assert (found.fires, found.next, found.passed_over) == ((NOON + HOUR,), NOON + 2 * HOUR, False)


def test_the_settings_make_a_schedule() -> None:
    assert wanted() == (None, Missed.LATEST)
    assert wanted(cron=" 0  3 * * *") == (Cron("0 3 * * *", "UTC"), Missed.LATEST)
    assert wanted(cron="0 3 * * *", tz="Europe/Rome", missed="all") == (Cron("0 3 * * *", "Europe/Rome"), Missed.ALL)
    assert wanted(every=60, missed=Missed.SKIP) == (Every(MINUTE), Missed.SKIP)
    assert wanted(every=HOUR) == (Every(HOUR), Missed.LATEST)


def test_a_schedule_is_shown_as_its_tasks_name_it() -> None:
    assert str(Cron("0 3 * * *", "Europe/Rome")) == "0 3 * * * Europe/Rome"
    assert str(Every(90 * SECOND)) == "every 0:01:30"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cron": "0 3 * * *", "every": 60}, "both given"),
    ({"tz": "Europe/Rome"}, "tz='Europe/Rome' is the time zone of a cron expression"),
    ({"tz": "Europe/Rome", "every": 60}, "tz='Europe/Rome' is the time zone of a cron expression"),
    ({"missed": "all"}, "missed='all' needs a schedule"),
    ({"every": 60, "missed": "some"}, "missed='some': give one of 'latest', 'all', 'skip'"),
    ({"every": 60, "missed": 5}, "missed=5: give one of"),
    ({"every": 0}, "every=0: .*at least 1 second"),
    ({"every": 0.5}, "every=0.5: .*at least 1 second"),
    ({"every": -1}, "every=-1 is negative"),
    ({"every": "daily"}, "every='daily': give seconds, or a timedelta"),
    ({"every": timedelta(days=40_000)}, "too long"),
    ({"cron": "daily"}, "cron='daily': Wrong number of fields: give minute"),
    ({"cron": ""}, "cron='': Wrong number of fields"),
    ({"cron": "61 3 * * *"}, "Bad minute"),
    ({"cron": "0 3 31 2 *"}, "Bad day-of-month"),
    ({"cron": "0 3 */31 * MON#5"}, "never fires: no such day exists"),
    ({"cron": 5}, "cron=5: give an expression as text"),
    *(
        ({"cron": "0 3 * * *", "tz": tz}, "is not a known time zone")
        for tz in ("Europe/Roma", "", "CEST!", "../UTC", "Europe", "a\0b", 5, "ü")
    ),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_a_wrong_setting_is_refused_with_what_was_found(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        wanted(**settings)


def test_without_cronsim_an_expression_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(InvalidOption, match=r'pip install "afterwards\[cron\]"'):
        wanted(cron="0 3 * * *")
    assert wanted(every=60)[0] == Every(MINUTE)


def test_a_function_without_a_schedule_is_told_how_to_get_one() -> None:
    error = NotScheduled("greet")
    assert error.name == "greet"
    assert '"greet" has no schedule: give it one with @task(cron=' in str(error)


HERE = StoredSchedule(name="greet", expression="a", after=NOON + HOUR)
THERE = StoredSchedule(name="greet", expression="a", after=NOON, last_fire=NOON)


@pytest.mark.parametrize(
    ("known", "arriving", "after"),
    [
        (None, THERE, THERE),
        (HERE, THERE, THERE),  # registered here meanwhile, and never fired
        (replace(HERE, last_fire=NOON + HOUR), THERE, replace(HERE, last_fire=NOON + HOUR)),
        (replace(THERE, last_fire=NOON), replace(HERE, last_fire=NOON + HOUR), replace(HERE, last_fire=NOON + HOUR)),
        (replace(THERE, last_fire=NOON), HERE, replace(HERE, last_fire=NOON)),
        (replace(HERE, expression="b"), THERE, replace(HERE, expression="b")),
        (HERE, replace(THERE, paused=True), replace(THERE, paused=True)),
        (replace(HERE, expression="b", paused=True), THERE, replace(HERE, expression="b", paused=True)),
    ],
)
def test_a_moved_schedule_handles_no_fire_twice_and_misses_none(
    known: StoredSchedule | None, arriving: StoredSchedule, after: StoredSchedule
) -> None:
    assert moved(known, arriving) == after


@pytest.mark.parametrize("span", [timedelta(seconds=5), timedelta(days=1, minutes=5), timedelta(days=9, seconds=0.5)])
def test_the_text_of_a_schedule_is_read_back(span: timedelta) -> None:
    assert of_text(str(Every(span))) == Every(span)
    assert of_text(str(Cron("0 3 * * *", "Europe/Berlin"))) == Cron("0 3 * * *", "Europe/Berlin")


@pytest.mark.parametrize("text", ["every day", "every 1 day", "every 1:2", "every x, 0:05:00"])
def test_a_text_that_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="is no schedule"):
        of_text(text)
