"""When a failed task runs again."""

from datetime import timedelta
from typing import Any

import pytest

from afterwards.core import errors
from afterwards.core.control import Cancel, RetryAfter, Snooze
from afterwards.core.errors import InvalidOption
from afterwards.core.raised_elsewhere import RaisedElsewhere
from afterwards.core.retry import Retry
from afterwards.core.spans import as_span


def waits(retry: Retry, count: int, random: float = 1) -> list[float]:
    return [retry.delay(failed, random).total_seconds() for failed in range(1, count + 1)]


def test_nothing_is_retried_unless_asked_for() -> None:
    assert Retry().times == 0


def test_the_wait_grows_up_to_its_limit() -> None:
    assert waits(Retry(9, wait=1, factor=3, max_wait=20, jitter=False), 5) == [1, 3, 9, 20, 20]


def test_the_wait_can_stay_the_same() -> None:
    assert waits(Retry(9, wait=5, factor=1, jitter=False), 3) == [5, 5, 5]


def test_jitter_draws_the_wait_from_zero_up() -> None:
    retry = Retry(9, wait=8)
    assert [retry.delay(1, random).total_seconds() for random in (0, 0.25, 1)] == [0, 2, 8]


def test_without_jitter_chance_has_no_part() -> None:
    retry = Retry(9, wait=8, jitter=False)
    assert retry.delay(1, 0) == retry.delay(1, 1) == timedelta(seconds=8)


def test_a_number_too_large_for_a_float_is_the_limit() -> None:
    assert waits(Retry(9, factor=2.0, max_wait=60, jitter=False), 1)[0] == 1
    assert Retry(9, factor=2.0, max_wait=60, jitter=False).delay(5000, 0) == timedelta(seconds=60)


def test_all_exceptions_are_retried_by_default() -> None:
    assert Retry(1).covers(ValueError()) and Retry(1).covers(SystemExit())


def test_only_the_named_exceptions_and_their_kinds_are_retried() -> None:
    retry = Retry(1, on=(OSError,))
    assert retry.covers(ConnectionError()) and not retry.covers(ValueError())


def test_never_wins() -> None:
    retry = Retry(1, on=(OSError,), never=(ConnectionError,))
    assert retry.covers(OSError()) and not retry.covers(ConnectionResetError())


@pytest.mark.parametrize("retried", [True, False])
def test_what_was_raised_elsewhere_was_decided_there(retried: bool) -> None:
    error = RaisedElsewhere.named("Gone", "no more", module="printing", retried=retried)
    assert (type(error).__qualname__, type(error).__module__, str(error)) == ("Gone", "printing", "no more")
    assert Retry(1, on=OSError).covers(error) is Retry(1, never=RaisedElsewhere).covers(error) is retried


@pytest.mark.parametrize("field", ["on", "never"])
@pytest.mark.parametrize("given", [OSError, [OSError], (OSError,)])
def test_one_exception_or_several_may_be_named(field: str, given: Any) -> None:
    assert getattr(Retry(1, **{field: given}), field) == (OSError,)


@pytest.mark.parametrize("field", ["on", "never"])
@pytest.mark.parametrize("given", ["OSError", OSError(), [int], None])
def test_what_is_no_exception_is_refused(field: str, given: Any) -> None:
    with pytest.raises(InvalidOption, match=rf"Retry\({field}=.*: give exception classes"):
        Retry(1, **{field: given})


@pytest.mark.parametrize("times", [-1, 1.5, True, "3"])
def test_the_number_of_runs_must_be_one(times: Any) -> None:
    with pytest.raises(InvalidOption, match=f"retries={times!r}"):
        Retry(times)


@pytest.mark.parametrize("fields", [{"wait": -1}, {"factor": 0.5}, {"wait": 10, "max_wait": 9}])
def test_waits_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InvalidOption, match="wait is at least 0, factor at least 1"):
        Retry(1, **fields)  # type: ignore[arg-type]  # floats only


def test_a_span_is_seconds_or_a_timedelta() -> None:
    assert as_span(1.5) == as_span(timedelta(seconds=1.5)) == timedelta(seconds=1.5)
    assert as_span(0) == timedelta()


@pytest.mark.parametrize("value", [-1, timedelta(seconds=-1)])
def test_a_negative_span_is_refused(value: float | timedelta) -> None:
    with pytest.raises(InvalidOption, match="is negative"):
        as_span(value)


def test_what_a_function_raises_says_how_long() -> None:
    assert RetryAfter(30).delay == Snooze(30).delay == timedelta(seconds=30)
    assert str(RetryAfter(30)) == "asked to be retried"
    assert str(RetryAfter(30, "rate limited")) == "rate limited"
    assert Cancel("gone").reason == "gone"


@pytest.mark.parametrize(
    ("error", "also", "attribute"),
    [
        (errors.UnknownFunction("greet"), LookupError, "name"),
        (errors.UnknownTask("7f3"), LookupError, "id"),
        (errors.NotStored("7f3"), RuntimeError, "id"),
    ],
)
def test_an_error_carries_its_values_and_is_the_built_in_that_fits(
    error: Exception, also: type[Exception], attribute: str
) -> None:
    assert isinstance(error, errors.AfterwardsError) and isinstance(error, also)
    assert str(getattr(error, attribute)) in str(error)


class Undecided(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit("cannot decide")


class UndecidedError(Exception, metaclass=Undecided):
    pass


def test_a_class_that_cannot_say_whom_it_covers_is_asked_for_its_subclasses() -> None:
    class Below(UndecidedError):
        pass

    assert Retry(1, on=UndecidedError).covers(Below())
    assert not Retry(1, on=UndecidedError).covers(ValueError())


def test_a_wait_is_never_longer_than_a_span_may_be() -> None:
    assert Retry(1, wait=3e9, factor=9, max_wait=3.1536e9, jitter=False).delay(9, 0.5).days == 36500
    for wait in (float("nan"), 1e300):
        with pytest.raises(InvalidOption):
            Retry(1, wait=wait, max_wait=wait)


def test_jitter_is_a_yes_or_a_no() -> None:
    with pytest.raises(InvalidOption, match=r"Retry\(jitter=0.5\): give True or False"):
        Retry(1, jitter=0.5)  # type: ignore[arg-type]  # on purpose


class Unaskable(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit("no answer")

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise SystemExit("no answer")


class OfAnUnaskableClass(Exception, metaclass=Unaskable):
    pass


class Below(OfAnUnaskableClass):
    pass


def test_a_class_that_raises_when_it_is_asked_covers_its_own() -> None:
    policy = Retry(1, on=OfAnUnaskableClass)
    assert policy.covers(OfAnUnaskableClass())
    assert policy.covers(Below())
    assert not policy.covers(ValueError())
    assert not Retry(1, never=OfAnUnaskableClass).covers(Below())
