"""Values that a client may have sent, and that cannot be stored."""

from decimal import Decimal
from pathlib import PurePath
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field

from afterwards.core.serialization.explain import schema_of
from afterwards.core.serialization.json import Json
from afterwards.core.serialization.sent import DEEP, may_be_sent


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        complex("inf"),
        Decimal("NaN"),
        "\ud800",
        PurePath("\ud800"),
        [{"a": float("inf")}],
        {"\ud800": 1},
        nested(DEEP),
    ],
)
def test_what_fastapi_accepts_and_json_cannot_hold_may_be_sent(value: Any) -> None:
    assert may_be_sent(value)


@pytest.mark.parametrize("value", [1.5, 2j, Decimal(1), "a", PurePath("a"), [{"a": 1}], nested(3), object()])
def test_other_values_are_the_codes_own(value: Any) -> None:
    assert not may_be_sent(value)


def test_a_value_that_contains_itself_was_made_by_code() -> None:
    value: list[Any] = []
    value.append(value)
    assert not may_be_sent(value)


class Plain:
    pass


def double(number: int) -> int:
    return number * 2


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Annotated[int, Field(gt=5)], 1),
        (Annotated[list[int], Field(max_length=1)], [1, 2]),
        (Literal["a", "b"], "c"),
        (Annotated[str, Field(pattern="^a")], "b"),
    ],
)
def test_contents_that_break_a_rule_are_told_from_another_type(annotation: Any, value: Any) -> None:
    assert Json(schema_of(annotation)).breaks_rule(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Annotated[int, Field(gt=5)], "six"),
        (list[Annotated[int, Field(gt=5)]], [1, "six"]),
        (Annotated[int, Field(gt=5)], 6),
        (Annotated[int, AfterValidator(double)], 1),
        (object, Plain()),
    ],
)
def test_another_type_and_a_change_are_faults_of_the_code(annotation: Any, value: Any) -> None:
    assert not Json(schema_of(annotation)).breaks_rule(value)
