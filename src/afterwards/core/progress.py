"""How far a task has come, as its function reports it."""

import json
from dataclasses import asdict, dataclass
from math import inf
from sys import float_info
from typing import Any, Self

from afterwards.core.text import shortened, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an attempt has come: ``done`` of ``total`` (None: nobody knows), counted in ``unit``."""

    done: float = 0
    total: float | None = None
    description: str = ""
    unit: str = ""
    note: str = ""  # what else the function has to say

    def __post_init__(self) -> None:
        """Raises TypeError and ValueError for what is no number."""
        for name in ("done", "total"):
            object.__setattr__(self, name, as_number(getattr(self, name)))
        for name in _TEXTS:
            object.__setattr__(self, name, text_of(getattr(self, name)))

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        return min(1.0, max(0.0, float(self.done) / float(self.total))) if self.total else None

    def to_text(self) -> str:
        """As JSON, 64 KiB at most; what says nothing is left out."""
        said = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        return json.dumps(said | {name: _short(said[name]) for name in _TEXTS & said.keys()})

    @classmethod
    def of_text(cls, text: str) -> Self:
        return cls(**json.loads(text))


def as_number(value: Any) -> Any:
    """The value as a number that JSON has: of numpy and decimal there are others. None stays None.

    Of what is larger than any of them comes the largest; what is not a number counts as nothing.
    """
    if value is None or (type(value) is int and -_EXACT <= value <= _EXACT):
        return value
    try:
        number = value if type(value) is float else float(value)
    except OverflowError:
        number = inf if value > 0 else -inf
    return 0.0 if number != number else max(-_LARGEST, min(_LARGEST, number))


def _short(text: str) -> str:
    return shortened(text, limit=TEXT_LIMIT // 4)


TEXT_LIMIT = 64 * 1024

_EXACT = 2**63 - 1
"""Whole numbers up to here stay what they are."""

_LARGEST = float_info.max

_TEXTS = frozenset({"description", "unit", "note"})
