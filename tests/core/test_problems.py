"""Problems of stored tasks: short, and without values."""

import json
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from afterwards.core.errors import Unreadable
from afterwards.core.problems import Problem, ProblemKind, Tally, unfit
from afterwards.core.serialization.arguments import Codec

SECRET = "hunter2"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


class Password(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def refuse(cls, text: str) -> str:
        if text == SECRET:
            raise ValueError(f"{text} is too short")
        if text == SECRET * 2:
            raise PydanticCustomError("weak", f"{text} is weak")  # type: ignore[arg-type]  # as an application may
        return text


def call(
    number: int,
    id: UUID,
    pet: Annotated[Cat | Dog, Field(discriminator="kind")],
    password: Password,
    ages: dict[str, int],
    codes: list[Annotated[str, Field(max_length=2)]],
) -> None: ...


FITTING: dict[str, Any] = {
    "number": 1,
    "id": "12345678-1234-1234-1234-123456789012",
    "pet": {"kind": "dog"},
    "password": {"text": "long enough"},
    "ages": {},
    "codes": [],
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"number": SECRET},
            'parameter "number": Input should be a valid integer, unable to parse string as an integer',
        ),
        ({"id": SECRET}, 'parameter "id": uuid parsing'),
        ({"pet": {"kind": SECRET}}, 'parameter "pet": union tag invalid'),
        ({"pet": {"kind": "cat"}}, 'inside parameter "pet": Field required'),
        ({"password": {"text": SECRET}}, 'inside parameter "password": a validator refuses it'),
        ({"password": {"text": SECRET * 2}}, 'inside parameter "password": a validator refuses it'),
        (
            {"ages": {SECRET: "x"}},
            'inside parameter "ages": Input should be a valid integer, unable to parse string as an integer',
        ),
        ({"codes": [SECRET]}, 'inside parameter "codes": String should have at most 2 characters'),
        ({"removed": SECRET}, 'parameter "removed": it is stored, and the function has no such parameter'),
    ],
)
def test_a_reason_names_the_parameter_and_no_value(changed: dict[str, Any], reason: str) -> None:
    found = unfit(refused(json.dumps(FITTING | changed)))
    assert found == reason
    assert SECRET not in found


def test_a_parameter_that_is_new_and_required_is_named() -> None:
    without = {name: value for name, value in FITTING.items() if name != "number"}
    assert unfit(refused(json.dumps(without))) == 'parameter "number": it has no default, and is not stored'


def test_what_is_no_json_is_said_to_be_none() -> None:
    assert unfit(refused(SECRET)) == "json invalid"


def test_of_other_errors_only_the_kind_is_said() -> None:
    assert unfit(KeyError(SECRET)) == "reading them raises KeyError"


def refused(text: str) -> BaseException | None:
    with pytest.raises(Unreadable) as caught:
        Codec(call, name="call").load(text)
    return caught.value.__cause__


def problem(name: str = "greet", reason: str = "this", count: int = 1, example: str = "1") -> Problem:
    return Problem(name=name, what=ProblemKind.ARGUMENTS, reason=reason, count=count, example=example)


def test_what_is_alike_is_counted_with_the_first_as_example() -> None:
    tally = Tally()
    for number in range(3):
        tally.add([problem(example=str(number))])
    assert tally.problems == [problem(count=3, example="0")]


def test_by_name_what_is_found_most_often_comes_first() -> None:
    tally = Tally()
    tally.add([problem("thank"), problem(reason="this"), problem(reason="that", count=2)])
    assert tally.problems == [problem(reason="that", count=2), problem(reason="this"), problem("thank")]


def test_a_problem_reads_as_a_line() -> None:
    assert str(problem()) == "greet, arguments: this (1 task, 1)"
    assert str(problem(count=1000)) == "greet, arguments: this (1,000 tasks, as 1)"
