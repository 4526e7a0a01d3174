"""The progress of a task, as its function reports it."""

import json
from dataclasses import asdict, dataclass
from math import inf
from sys import float_info
from typing import Any, Self

from afterwards.core.text import shortened, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of an attempt: ``done`` of ``total`` (None if unknown), counted in ``unit``."""

    done: int | float = 0  # both are named, so that JSON keeps whole numbers
    total: int | float | None = None
    description: str = ""
    unit: str = ""
    note: str = ""  # free text of the function

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError if ``done`` or ``total`` is not a number."""
        for name in ("done", "total"):
            object.__setattr__(self, name, as_number(getattr(self, name)))
        for name in _TEXTS:
            object.__setattr__(self, name, text_of(getattr(self, name)))

    @property
    def fraction(self) -> float | None:
        """The completed part, from 0 to 1; None if the total is unknown or zero."""
        return min(1.0, max(0.0, float(self.done) / float(self.total))) if self.total else None

    def to_text(self) -> str:
        """Return JSON text of at most 64 KiB, without empty fields."""
        said = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        return json.dumps(said | {name: _short(said[name]) for name in _TEXTS & said.keys()})

    @classmethod
    def of_text(cls, text: str) -> Self:
        return cls(**json.loads(text))


def as_number(value: Any) -> Any:
    """Return the value as an int or float that JSON can hold, also for NumPy's and Decimal's numbers. None stays None.

    Infinity becomes the largest float, NaN becomes zero. Raises TypeError or ValueError for other values.
    """
    if value is None or (type(value) is int and -_EXACT <= value <= _EXACT):
        return value
    try:
        number = value if type(value) is float else float(value)
    except OverflowError:
        number = inf if value > 0 else -inf
    return 0.0 if number != number else max(-_LARGEST, min(_LARGEST, number))


def stored_progress(text: str) -> Progress:
    """Return the stored progress. It decides nothing, so a part that cannot be read is only reported."""
    try:
        return Progress.of_text(text)
    except (ValueError, TypeError, RecursionError):
        return Progress(note="the stored progress cannot be read")


def _short(text: str) -> str:
    return shortened(text, limit=TEXT_LIMIT // 4)


TEXT_LIMIT = 64 * 1024

_EXACT = 2**63 - 1
"""Integers up to this absolute value stay integers; larger ones become floats."""

_LARGEST = float_info.max

_TEXTS = frozenset({"description", "unit", "note"})
