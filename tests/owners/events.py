"""Reads server-sent events as a browser does."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Event:
    """One event, or a comment, or only a ``retry``."""

    name: str = ""
    data: list[str] = field(default_factory=list)
    id: str = ""
    retry: int | None = None
    comment: str = ""

    @property
    def json(self) -> Any:
        return json.loads("\n".join(self.data))


async def events_of(answer: httpx.Response) -> AsyncIterator[Event]:
    event = Event()
    async for line in answer.aiter_lines():
        if not line:
            yield event
            event = Event()
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                event.comment = value
            case "event":
                event.name = value
            case "data":
                event.data.append(value)
            case "id":
                event.id = value
            case "retry":
                event.retry = int(value)
            case _:
                raise AssertionError(f"no browser knows this line: {line!r}")


async def named(events: AsyncIterator[Event]) -> Event:
    """The next event that has a name."""
    async for event in events:
        if event.name:
            return event
    raise AssertionError("the stream has ended")
