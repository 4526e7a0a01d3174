"""Decide which tasks may start now, under the limits of their functions."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self, TypeVar

from afterwards.core.clock_correction import put_back
from afterwards.core.errors import InvalidOption
from afterwards.core.spans import UNITS

T = TypeVar("T")

UNLIMITED = ""
"""The limit key of a task whose function has no limits."""

ALL = "*"
"""The limit key of a task whose function has limits that all its tasks share."""

MOST_STARTS = 10_000
"""The most starts in one span that a rate may allow: each is remembered until the span is over."""

Group = tuple[str, str]
"""The tasks that are counted together: the name of a task function, and a limit key."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many starts within any span of this length."""

    count: int
    per: timedelta

    @classmethod
    def of(cls, text: object) -> Self:
        """``"10/m"`` is ten a minute; ``s``, ``m``, ``h`` and ``d``, also ``"1/30s"``. Raises InvalidOption."""
        found = _RATE.fullmatch(text) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= MOST_STARTS or not int(found[2] or 1):
            raise InvalidOption(
                f"rate_limit={text!r}: give a number of starts, {MOST_STARTS:,} at most, and a span: '10/m' or '1/30s'"
            )
        return cls(int(found[1]), int(found[2] or 1) * UNITS[found[3]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The limit of a task function for each limit key, across all processes."""

    max_concurrency: int | None = None
    rate: Rate | None = None
    counts_as: str = ""  # the name that tasks stored under several names are counted by; empty: each by its own


@dataclass(frozen=True, slots=True)
class Used:
    """The usage of a limit: running tasks, and when the latest ones started, oldest first."""

    running: int = 0
    starts: Sequence[datetime] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """How many more tasks may start now (None: any number), and when another may if only the rate forbids it."""

    count: int | None
    more_at: datetime | None = None


def room(limit: Limit, used: Used, now: datetime) -> Room:
    """Return the room that a limit leaves."""
    count: int | None = None
    more_at = None
    if limit.max_concurrency is not None:
        count = max(0, limit.max_concurrency - used.running)
    if limit.rate is not None:
        began = (start for start in used.starts if not put_back(start, now))
        recent = [start for start in began if start + limit.rate.per > now]
        left = max(0, limit.rate.count - len(recent))
        if recent and (count is None or left < count):
            more_at = recent[-limit.rate.count :][0] + limit.rate.per
        count = left if count is None else min(count, left)
    return Room(count, more_at)


def rooms(
    groups: Iterable[Group],
    limits: Mapping[str, Limit],
    running: Mapping[Group, int],
    began: Mapping[Group, Sequence[datetime]],
    now: datetime,
) -> dict[Group, Room]:
    """Return the room of each group that has a limit, from its running tasks and its latest starts."""
    by_name = by_group(limits)
    return {
        group: room(by_name[group[0]], Used(running.get(group, 0), began.get(group, ())), now)
        for group in groups
        if group[0] in by_name
    }


def next_room(rooms: Iterable[Room]) -> datetime | None:
    """Return when the first group that has used up its rate has room again, None if there is no such group."""
    return min((room.more_at for room in rooms if room.count == 0 and room.more_at), default=None)


@dataclass(frozen=True, slots=True)
class Start:
    """A start that counts against a rate, and the instant until which it counts."""

    group: Group
    at: datetime
    until: datetime


def starts(groups: Iterable[tuple[str, Group]], limits: Mapping[str, Limit], now: datetime) -> list[Start]:
    """Return the starts to remember for tasks that start now: those of functions with a rate.

    Each task is given as its name and its group.
    """
    return [
        Start(group, now, now + limit.rate.per)
        for name, group in groups
        if (limit := limits.get(name)) is not None and limit.rate is not None
    ]


def group_of(name: str, limit_key: str, limits: Mapping[str, Limit]) -> Group:
    """Return the group of a task. A task stored before its function had limits shares the group ``ALL``."""
    limit = limits.get(name)
    return (limit.counts_as if limit and limit.counts_as else name), limit_key or ALL


def by_group(limits: Mapping[str, Limit]) -> dict[str, Limit]:
    """Return the limits by the name under which tasks are counted."""
    return {limit.counts_as or name: limit for name, limit in limits.items()}


Candidate = tuple[T, bool, Group]
"""A task that could be taken, in the form that the caller needs; whether it is a suspect; its group."""


def admit(candidates: Iterable[Candidate[T]], rooms: Mapping[Group, Room], *, limit: int, suspects: int) -> Iterator[T]:
    """Yield the tasks that may start, in order and at most ``limit``. A group that is not in ``rooms`` has no limit."""
    admitted: Counter[Group] = Counter()
    for item, suspect, group in candidates:
        if limit < 1:
            return
        left = rooms[group].count if group in rooms else None
        if (suspect and suspects < 1) or (left is not None and admitted[group] >= left):
            continue
        admitted[group] += 1
        suspects -= suspect
        limit -= 1
        yield item


_RATE = re.compile(r"(\d{1,9})/(\d{0,6})([smhd])", re.ASCII)
