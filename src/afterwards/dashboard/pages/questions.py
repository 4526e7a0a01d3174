"""What the address of a list asks for, and its way back into an address."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from afterwards.client.steering import Filter
from afterwards.core.task import State

SPANS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}

LONGEST_TEXT = 200


class BadQuestion(Exception):
    """An address asks for something that does not exist. The text says what, and what does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The filter of a list, as in its address. Empty text means any."""

    state: State | None = None
    name: str = ""
    queue: str = ""
    text: str = ""
    since: str = ""  # a key of SPANS

    @classmethod
    def of(cls, address: Mapping[str, str]) -> Self:
        """Read an address, or the fields of a form. Raises BadQuestion."""
        state, since = address.get("state", ""), address.get("since", "")
        if state not in {"", *State}:
            raise BadQuestion(f"There is no state “{state}”. The states are {', '.join(State)}.")
        if since not in {"", *SPANS}:
            raise BadQuestion(f"“{since}” is no span of this list. The spans are {', '.join(SPANS)}.")
        return cls(
            state=State(state) if state else None,
            name=address.get("name", "").strip(),
            queue=address.get("queue", "").strip(),
            text=address.get("text", "").strip()[:LONGEST_TEXT],
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
        return Filter(
            states=None if self.state is None else frozenset({self.state}),
            names=frozenset({self.name}) if self.name else None,
            queues=frozenset({self.queue}) if self.queue else None,
            text=self.text or None,
            since=now - SPANS[self.since] if self.since else None,
        )
