"""Frozen objects that are made quickly are like all others of their class."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from afterwards.core.fast_frozen import blank, draft_of, frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int = 0


Draft = draft_of(Point)


def test_a_draft_is_an_object_of_its_class_once_it_is_frozen() -> None:
    point = frozen(Draft(x=1), Point)
    assert point == Point(x=1)
    with pytest.raises(FrozenInstanceError):
        point.y = 2  # type: ignore[misc]


def test_a_blank_draft_has_what_is_set() -> None:
    draft = blank(Draft)
    draft.x, draft.y = 1, 2
    assert frozen(draft, Point) == Point(x=1, y=2)
