"""Which option a misspelt keyword was meant to be."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from afterwards.core.errors import InvalidOption
from afterwards.core.options import lease_of
from afterwards.core.retry import Retry
from afterwards.core.spelling import check_known, check_names


class Pump:
    def __init__(self, power: int, *parts: str, speed: int = 1, **unknown: Any) -> None: ...


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (
            lambda: check_names(Pump, {"sped": 1}),
            r"^Pump\(sped=\.\.\.\): .*did you mean speed\? The options are power, speed$",
        ),
        (lambda: check_names(Pump, {"colour": 1}), r"there is no such option; The options are power, speed$"),
        (lambda: check_known("@task", "max_retries", ["retries"]), r"did you mean retries\?"),
        (lambda: check_known("Retry", "max_retries", ["times"]), r"did you mean times\?"),
    ],
)
def test_a_misspelt_keyword_is_told_of_the_one_that_was_meant(mistake: Callable[[], None], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        mistake()
    with pytest.raises(TypeError):
        mistake()


def test_what_is_spelt_well_is_taken() -> None:
    check_names(Pump, {})
    check_names(Pump, {"speed": 1})


def test_a_lease_is_shown_as_it_was_given() -> None:
    assert lease_of(timedelta(seconds=1)) == lease_of(1)
    for given, shown in [(0, "0"), (timedelta(), r"datetime\.timedelta\(0\)"), (0.2, r"0\.2")]:
        with pytest.raises(InvalidOption, match=f"^lease={shown}: three heartbeats must fit into it"):
            lease_of(given)  # type: ignore[arg-type]  # mypy joins them to object


def test_no_exception_to_retry_on_is_a_mistake() -> None:
    with pytest.raises(InvalidOption, match=r"Retry\(on=\(\)\): no exception would be retried"):
        Retry(3, on=())
    assert Retry(3, wait=timedelta(seconds=2), never=()).wait == 2
