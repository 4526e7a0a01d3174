"""How far a task has come, as it is kept."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterwards.core.progress import Progress

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


@given(
    st.builds(
        Progress,
        done=numbers,
        total=st.none() | numbers,
        description=st.text(st.characters(exclude_categories=["Cs"])),
        unit=st.text(st.characters(exclude_categories=["Cs"])),
        note=st.text(st.characters(exclude_categories=["Cs"])),
    )
)
def test_it_comes_back_as_it_was(progress: Progress) -> None:
    assert Progress.of_text(progress.to_text()) == progress


def test_numbers_of_other_kinds_become_numbers_and_others_are_refused() -> None:
    assert Progress(done=Decimal("1.5"), total=True) == Progress(done=1.5, total=1.0)  # type: ignore[arg-type]  # on purpose
    for wrong in ("one", object()):
        with pytest.raises((TypeError, ValueError)):
            Progress(done=wrong)  # type: ignore[arg-type]  # on purpose


def test_what_says_nothing_is_not_written() -> None:
    assert json.loads(Progress(done=3).to_text()) == {"done": 3}


def test_no_text_makes_it_longer_than_a_record_may_be() -> None:
    text = Progress(description="x" * 10**6, unit="y" * 10**6, note="z" * 10**6).to_text()
    assert len(text) < 64 * 1024
    assert Progress.of_text(text).description.startswith("xxx")


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(0, None, None), (1, 4, 0.25), (5, 4, 1.0), (-1, 4, 0.0), (1, 0, None)]
)
def test_the_fraction_lies_between_nothing_and_all(done: float, total: float | None, fraction: float | None) -> None:
    assert Progress(done=done, total=total).fraction == fraction


class Large(float):
    """As numpy's numbers, of a class of its own."""


class Larger:
    def __float__(self) -> float:
        raise OverflowError

    def __gt__(self, other: object) -> bool:
        return True


def test_numbers_that_json_does_not_have_become_the_next_that_it_has() -> None:
    largest = 1.7976931348623157e308
    assert Progress(done=10**5000, total=-(10**5000)) == Progress(done=largest, total=-largest)
    assert Progress(done=float("nan"), total=float("inf")) == Progress(done=0.0, total=largest)
    assert Progress(done=Larger()).done == largest  # type: ignore[arg-type]  # on purpose
    assert type(Progress(done=Large(2)).done) is float
