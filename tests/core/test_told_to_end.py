from signal import SIGINT, SIGTERM

import pytest

from afterwards.core.told_to_end import PASSED_ON_WITHIN, Asked, asked

LATER = 100 + PASSED_ON_WITHIN


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_the_first_signal_asks_for_the_end(number: int) -> None:
    assert asked(number, 100, {}) is Asked.END


@pytest.mark.parametrize(("first", "second"), [(SIGINT, SIGTERM), (SIGTERM, SIGTERM), (SIGTERM, SIGINT)])
def test_a_signal_that_a_parent_may_have_passed_on_asks_for_nothing_more(first: int, second: int) -> None:
    assert asked(second, 100, {first: 100}) is Asked.THE_SAME
    assert asked(second, LATER - 0.01, {first: 100}) is Asked.THE_SAME


@pytest.mark.parametrize(("first", "second"), [(SIGINT, SIGTERM), (SIGTERM, SIGTERM), (SIGTERM, SIGINT)])
def test_a_later_signal_asks_for_the_end_at_once(first: int, second: int) -> None:
    assert asked(second, LATER, {first: 100}) is Asked.END_NOW


def test_a_second_ctrl_c_asks_for_the_end_at_once() -> None:
    assert asked(SIGINT, 100, {SIGINT: 100}) is Asked.END_NOW
    assert asked(SIGINT, 100.5, {SIGINT: 100, SIGTERM: 100.4}) is Asked.END_NOW


def test_the_time_counts_from_the_first_signal_of_all() -> None:
    assert asked(SIGTERM, LATER, {SIGINT: 100, SIGTERM: LATER - 0.1}) is Asked.END_NOW
