"""Instants among the arguments keep their time zone: an offset alone is another hour in winter."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import TZPATH, ZoneInfo

import pytest
from pydantic import AwareDatetime, BaseModel, PlainSerializer

from afterwards.core.errors import Unreadable, UnstorableArgument
from afterwards.core.serialization.arguments import Codec

BERLIN = ZoneInfo("Europe/Berlin")
SUMMER = datetime(2026, 7, 1, 12, 30, 0, 5, tzinfo=BERLIN)


class Visit(BaseModel):
    begin: datetime
    times: list[time] = []


def taking(annotation: Any) -> Codec:
    def send(value): ...

    send.__annotations__["value"] = annotation
    return Codec(send, name="send")


def there_and_back(annotation: Any, value: Any) -> Any:
    codec = taking(annotation)
    return codec.load(codec.dump((value,), {}))["value"]


@pytest.mark.parametrize(
    "annotation", [datetime, datetime | None, int | datetime, date | datetime, datetime | time, AwareDatetime]
)
def test_a_zone_comes_back_as_what_it_was(annotation: Any) -> None:
    loaded = there_and_back(annotation, SUMMER)
    assert loaded == SUMMER
    assert loaded.tzinfo is BERLIN
    assert loaded + timedelta(days=180) == SUMMER + timedelta(days=180)  # 12:30 in winter, too


def test_zones_inside_of_models_keys_and_times_of_day_come_back() -> None:
    visit = there_and_back(Visit, Visit(begin=SUMMER, times=[time(1, tzinfo=BERLIN), time(2)]))
    assert (visit.begin.tzinfo, [one.tzinfo for one in visit.times]) == (BERLIN, [BERLIN, None])
    [key] = there_and_back(dict[datetime, int], {SUMMER: 1})
    assert key.tzinfo is BERLIN


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("clock", [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30), datetime(1, 1, 1)])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC", "Africa/Monrovia"])
def test_an_hour_that_a_zone_repeats_or_skips_comes_back(clock: datetime, fold: int, zone: str) -> None:
    local = clock.replace(tzinfo=ZoneInfo(zone), fold=fold)
    loaded = there_and_back(datetime, local)
    assert (loaded.replace(tzinfo=None), loaded.utcoffset(), loaded.tzinfo) == (clock, local.utcoffset(), local.tzinfo)


@pytest.mark.parametrize("value", [SUMMER.astimezone(UTC), SUMMER.replace(tzinfo=None)])
def test_other_instants_are_written_as_before(value: datetime) -> None:
    assert "[" not in taking(datetime).dump((value,), {})
    assert there_and_back(datetime, value) == value


@pytest.mark.parametrize("annotation", [datetime | int, int | datetime, Literal[3] | datetime])
def test_what_else_a_union_takes_is_no_instant(annotation: Any) -> None:
    assert there_and_back(annotation, 3) == 3


def test_a_date_and_an_instant_at_midnight_stay_apart() -> None:
    for annotation in (date | datetime, datetime | date, Annotated[date | datetime, "of something"] | None):
        for value in (date(2026, 1, 1), datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=BERLIN)):
            loaded = there_and_back(annotation, value)
            assert (type(loaded), loaded) == (type(value), value)


def test_a_form_of_the_users_own_is_left_to_them() -> None:
    own = Annotated[datetime, PlainSerializer(lambda instant: instant.isoformat())]
    assert "[" not in taking(own).dump((SUMMER,), {})


def test_an_instant_stored_without_its_zone_can_still_be_read() -> None:
    loaded = taking(datetime).load('{"value":"2026-07-01T12:30:00.000005+02:00"}')["value"]
    assert loaded == SUMMER


def test_the_instant_holds_where_the_rules_of_the_zone_have_changed() -> None:
    loaded = taking(datetime).load('{"value":"2026-07-01T12:30:00+05:00[Europe/Berlin]"}')["value"]
    assert (loaded.isoformat(), loaded.tzinfo) == ("2026-07-01T09:30:00+02:00", BERLIN)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-07-01T12:00:00+02:00[Nowhere/Land]", "its time zone is unknown here: install the package tzdata"),
        ("2026-07-01T12:00:00+02:00[../passwd]", "ZoneInfo keys must"),
        ("0001-01-01T00:00:00+10:00[America/New_York]", "its time zone has no such year"),
        ("soon[Europe/Berlin]", "Input should be a valid datetime"),
    ],
)
def test_what_no_zone_can_be_made_of_is_unreadable(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        taking(datetime).load(f'{{"value":"{text}"}}')


def test_a_zone_without_a_key_is_refused_with_what_to_pass() -> None:
    folder = next(Path(folder) for folder in TZPATH if Path(folder, BERLIN.key).exists())
    with (folder / BERLIN.key).open("rb") as rules:
        unnamed = ZoneInfo.from_file(rules)
    with pytest.raises(UnstorableArgument, match=r"its ZoneInfo has no key, .* pass it in a zone with a key, or in"):
        taking(datetime).dump((SUMMER.replace(tzinfo=unnamed),), {})
