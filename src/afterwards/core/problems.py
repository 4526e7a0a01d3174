"""Reasons why this code cannot run a stored task, in texts that never show an argument's value."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType


class ProblemKind(StrEnum):
    """The part of a stored task that this code cannot read."""

    NAME = "name"
    ARGUMENTS = "arguments"
    OPTIONS = "options"  # those that the call set for itself
    CONTEXT = "context"  # the values of context variables
    WORKER = "worker"  # of a fleet: none that lives would take it
    RECORD = "record"  # the whole row: a later version wrote it, or it is damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A reason why stored tasks cannot run with this code. It shows no values: they may be secret."""

    name: str
    what: ProblemKind
    reason: str
    count: int
    example: str  # the id of the newest of these tasks

    def __str__(self) -> str:
        tasks = f"1 task, {self.example}" if self.count == 1 else f"{self.count:,} tasks, as {self.example}"
        return f"{self.name}, {self.what}: {self.reason} ({tasks})"


class Tally:
    """Counts equal problems, so that a million tasks give a short answer."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ProblemKind, str], Problem] = {}

    def add(self, problems: Iterable[Problem]) -> None:
        for one in problems:
            known = self._found.get((one.name, one.what, one.reason))
            self._found[one.name, one.what, one.reason] = (
                replace(known, count=known.count + one.count) if known else one
            )

    @property
    def problems(self) -> list[Problem]:
        """The problems, sorted by name, the most frequent first."""
        return sorted(self._found.values(), key=lambda one: (one.name, -one.count, one.what, one.reason))


def unfit(error: BaseException | None) -> str:
    """Return why stored arguments do not fit the function. Equal problems give equal texts, whatever the values."""
    if not isinstance(error, ValidationError):
        return f"reading them raises {type(error).__name__}"
    fault = error.errors(include_url=False, include_input=False)[0]
    found = _found(fault["type"], fault["msg"], fault.get("ctx", {}), of_parameter=len(fault["loc"]) == 1)
    if not fault["loc"]:
        return found
    where = (
        "parameter" if len(fault["loc"]) == 1 else "inside parameter"
    )  # a deeper location may be the key of a dict, which is a value
    return f'{where} "{fault["loc"][0]}": {found}'


def _found(kind: str, message: str, context: dict[str, Any], *, of_parameter: bool) -> str:
    if of_parameter and kind in _OF_PARAMETERS:
        return _OF_PARAMETERS[kind]
    if kind not in _WORDED_BY_PYDANTIC:
        return "a validator refuses it"
    return kind.replace("_", " ") if context.keys() - _OF_THE_TYPE else message


_OF_PARAMETERS: Final = {
    "missing": "it has no default, and is not stored",
    "extra_forbidden": "it is stored, and the function has no such parameter",
}
_WORDED_BY_PYDANTIC: Final = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
_OF_THE_TYPE: Final = frozenset(
    {
        "class",
        "class_name",
        "decimal_places",
        "expected",
        "expected_schemes",
        "field_name",
        "field_type",
        "ge",
        "gt",
        "le",
        "lt",
        "max_digits",
        "max_length",
        "min_length",
        "multiple_of",
        "pattern",
        "whole_digits",
    }
)
"""The parts of pydantic's messages that describe a type. Any other part may show the value."""
