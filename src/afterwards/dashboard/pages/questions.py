"""The question in the address of a list, and its way back into an address."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from fastapi import HTTPException

from afterwards.client.steering import Filter
from afterwards.core.task import State
from afterwards.dashboard.filters import SPAN, filter_of

SPANS = ("15m", "1h", "24h", "7d")
"""The spans that the page offers; an address may have others."""

LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The filter of a list, as in its address. Empty text means any."""

    state: State | None = None
    name: str = ""
    queue: str = ""
    text: str = ""
    since: str = ""  # as "1h"

    @classmethod
    def of(cls, address: Mapping[str, str]) -> Self:
        """Read an address, or the fields of a form. Raises HTTPException."""
        state, since = address.get("state", ""), address.get("since", "")
        if state not in {"", *State}:
            raise HTTPException(422, f"There is no state “{state}”. The states are {', '.join(State)}.")
        if since and not SPAN.fullmatch(since):
            raise HTTPException(422, f"“{since}” is no span of time: give a number with s, m, h or d, as 1h.")
        return cls(
            state=State(state) if state else None,
            name=_text(address, "name"),
            queue=_text(address, "queue"),
            text=_text(address, "text"),
            since=since,
        )

    def fields(self) -> dict[str, str]:
        """Return the parts that are not empty, for an address or the hidden fields of a form."""
        said = {"state": self.state or "", "name": self.name, "queue": self.queue, "text": self.text}
        return {key: str(value) for key, value in (said | {"since": self.since}).items() if value}

    def at(self, state: State | None) -> "Question":
        return replace(self, state=state)

    @property
    def narrowed(self) -> bool:
        """True if it asks for less than a state."""
        return bool(self.fields().keys() - {"state"})

    def filter(self, now: datetime) -> Filter:
        return filter_of(
            [self.state] if self.state else [],
            [self.name] if self.name else [],
            [self.queue] if self.queue else [],
            self.text or None,
            self.since or None,
            now,
        )


def _text(address: Mapping[str, str], key: str) -> str:
    """Return a text of an address. No task has the character U+0000, and not every store can be asked for it."""
    return address.get(key, "").replace("\0", "").strip()[:LONGEST_TEXT]


def id_of(text: str) -> str | None:
    """Return the id of a task as engines have it; None if no task can have it."""
    try:
        return str(UUID(text))
    except ValueError:
        return None
