"""The filters that clients send, in the address or as JSON."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from afterwards.client.steering import PAGE, Filter
from afterwards.core.names import NAME
from afterwards.core.options import EARLIEST, LATEST
from afterwards.core.spans import LONGEST_SPAN, UNITS
from afterwards.core.task import State

MOST_LISTED = 200
"""The most tasks in one answer."""

MOST_IDS = 1000
"""The most tasks that one call may name by their ids."""

SPAN = re.compile(r"[0-9]{1,6}[smhd]")


def _written_out(instant: Any) -> Any:
    """Refuse numbers, which pydantic takes for seconds since 1970: a span is meant."""
    if not isinstance(instant, str) or not _DATE.match(instant):
        raise ValueError(
            "give an instant with its zone, as 2026-01-31T12:30:00Z, or a span until now, as 15m, 1h or 7d"
        )
    return instant


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Span = Annotated[str, Field(pattern=f"^{SPAN.pattern}$", examples=["15m", "1h", "7d"])]
Since = Annotated[
    Annotated[AwareDatetime, BeforeValidator(_written_out)] | Span,
    Field(description="An instant with its zone, or a span until now: finished since then, else added since then"),
]
Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00]+$",  # PostgreSQL takes none
        description="Part of an id, a name, the request, the arguments or a failure",
    ),
]


ONCE = ("text", "since", "limit", "before", "span", "task")


def each_once(request: Request) -> None:
    """Refuse an address that gives a parameter twice of which only one value would count."""
    for name in ONCE:
        if len(request.query_params.getlist(name)) > 1:
            raise RequestValidationError(
                [{"type": "value_error", "loc": ("query", name), "msg": "it is given more than once"}]
            )


class Strict(BaseModel):
    """A misspelled parameter is refused, as it would not narrow a filter."""

    model_config = ConfigDict(extra="forbid")


class Asked(Strict):
    """A filter in an address: ``?state=failed&state=cancelled&queue=mail&since=1h``."""

    state: list[State] = Field(default=[])
    name: list[Name] = Field(default=[])
    queue: list[Name] = Field(default=[])
    text: Text | None = None
    since: Since | None = None

    def filter(self, now: datetime) -> Filter:
        return filter_of(self.state, self.name, self.queue, self.text, self.since, now)


class Listing(Asked):
    """A page of a list."""

    limit: int = Field(default=PAGE, ge=1, le=MOST_LISTED)
    before: UUID | None = Field(default=None, description="The `next` of the page before")

    @property
    def below(self) -> str | None:
        return None if self.before is None else str(self.before)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Everything(Strict):
    """All tasks: ``{"all": true}``."""

    all: Literal[True]

    def wanted(self, now: datetime) -> Filter:
        return Filter()


class Given(Strict):
    """A filter in a body: ``{"state": "failed", "since": "1h"}``. An empty one is refused: it would mean all tasks."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    state: State | Annotated[list[State], Field(min_length=1)] = Field(default=[])
    name: Name | Annotated[list[Name], Field(min_length=1)] = Field(default=[])
    queue: Name | Annotated[list[Name], Field(min_length=1)] = Field(default=[])
    text: Text = Field(default="")
    since: Since = Field(default="")

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if not self.model_fields_set:
            raise ValueError('an empty filter would mean all tasks: say {"all": true}')
        return self

    def wanted(self, now: datetime) -> Filter:
        lists = (_as_list(self.state), _as_list(self.name), _as_list(self.queue))
        return filter_of(*lists, self.text or None, self.since or None, now)


def _all_or_some(given: Any) -> str:
    return "all" if isinstance(given, Mapping) and "all" in given else "some"


class ByIds(Strict):
    """The tasks with these ids."""

    ids: list[UUID] = Field(min_length=1, max_length=MOST_IDS)

    def wanted(self, now: datetime) -> Filter:
        return Filter(ids=tuple(dict.fromkeys(str(id) for id in self.ids)))


class ByFilter(Strict):
    """The tasks that a filter names, at most 100,000."""

    filter: Annotated[
        Annotated[Everything, Tag("all")] | Annotated[Given, Tag("some")],
        Discriminator(_all_or_some),
    ]

    def wanted(self, now: datetime) -> Filter:
        return self.filter.wanted(now)


def _kind(body: Any) -> str:
    if not isinstance(body, Mapping) or not body or "ids" in body:
        return "ids"
    return "filter" if "filter" in body else _all_or_some(body)


Selection = Annotated[
    Annotated[ByIds, Tag("ids")]
    | Annotated[ByFilter, Tag("filter")]
    | Annotated[Everything, Tag("all")]
    | Annotated[Given, Tag("some")],
    Discriminator(_kind),
]
"""The body of an action: ``{"ids": [...]}``, ``{"filter": {...}}``, or the filter itself: ``{"state": "failed"}``."""


def filter_of(
    states: Iterable[State],
    names: Iterable[str],
    queues: Iterable[str],
    text: str | None,
    since: datetime | str | None,
    now: datetime,
) -> Filter:
    """Return the filter that these values mean. Nothing given means any."""
    return Filter(
        states=frozenset(states) or None,
        names=frozenset(names) or None,
        queues=frozenset(queues) or None,
        text=text,
        since=None if since is None else _instant(since, now),
    )


def _instant(since: datetime | str, now: datetime) -> datetime:
    """Return an instant or the start of a span, in UTC, within what every store can hold."""
    if isinstance(since, str):
        return now - min(int(since[:-1]) * UNITS[since[-1]], LONGEST_SPAN)
    return min(max(since, EARLIEST), LATEST).astimezone(UTC)
