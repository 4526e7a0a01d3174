"""Counts of ended attempts, by time: what charts show, also after the records themselves are gone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import NamedTuple

from afterwards.core.settling import Settled
from afterwards.core.task import State

STEP = timedelta(minutes=1)
"""The span that an engine counts together."""

KEPT = timedelta(days=8)
"""How long counts are kept: a week can be shown whole."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Ends(NamedTuple):
    """Numbers of attempts that ended."""

    succeeded: int = 0
    failed: int = 0  # for good
    retried: int = 0  # they did not succeed, and another attempt follows

    def __bool__(self) -> bool:
        return any(self)


@dataclass(frozen=True, slots=True)
class Tally:
    """The attempts that ended within one step of time."""

    at: datetime  # the start of the step
    ends: Ends


def ends_of(accepted: Iterable[Settled]) -> Ends:
    """Count ends that were stored. A snooze, a release, a cancel and a task that is set aside count nowhere.

    >>> from afterwards.core.task import Lease
    >>> ends_of([Settled(lease=Lease("a", 1), state=State.SUCCEEDED), Settled(lease=Lease("b", 1), state=State.FAILED)])
    Ends(succeeded=1, failed=1, retried=0)
    """
    kinds = Counter(_kind(one) for one in accepted)
    return Ends(kinds["succeeded"], kinds["failed"], kinds["retried"])


def step_of(at: datetime, step: timedelta = STEP) -> datetime:
    """Return the start of the step in which an instant is. Steps are counted from 1970, UTC."""
    return at - (at - _EPOCH) % step


def added(one: Ends, other: Ends) -> Ends:
    return Ends(*(first + second for first, second in zip(one, other, strict=True)))


def total(ends: Iterable[Ends]) -> Ends:
    return reduce(added, ends, Ends())


def _kind(settled: Settled) -> str:
    if settled.state is State.SCHEDULED:
        return "retried" if settled.failure is not None and settled.failure.kind.counts else ""
    return {State.SUCCEEDED: "succeeded", State.FAILED: "failed"}.get(settled.state, "")
