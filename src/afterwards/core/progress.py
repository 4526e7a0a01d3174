"""How far a task has come, as its function reports it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from afterwards.core.text import shortened


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
            object.__setattr__(self, name, str(getattr(self, name)))

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else None

    def to_text(self) -> str:
        """As JSON, 64 KiB at most; what says nothing is left out."""
        said = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        return json.dumps(said | {name: _short(said[name]) for name in _TEXTS & said.keys()})

    @classmethod
    def of_text(cls, text: str) -> Self:
        return cls(**json.loads(text))


def as_number(value: Any) -> Any:
    """The value as a number that JSON has: of numpy and decimal there are others. None stays None."""
    return value if value is None or type(value) in (int, float) else float(value)


def _short(text: str) -> str:
    return shortened(text, limit=TEXT_LIMIT // 4)


TEXT_LIMIT = 64 * 1024

_TEXTS = frozenset({"description", "unit", "note"})
