"""Ended attempts by time, for charts: every step of a span, also those in which nothing ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from afterwards.core.tallies import Ends, Tally, step_of
from afterwards.engine import Engine


class Span(StrEnum):
    """A span of time until now."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]

    @property
    def step(self) -> timedelta:
        return _STEPS[self]


_LENGTHS = {Span.HOUR: timedelta(hours=1), Span.DAY: timedelta(hours=24), Span.WEEK: timedelta(days=7)}
_STEPS = {Span.HOUR: timedelta(minutes=1), Span.DAY: timedelta(minutes=15), Span.WEEK: timedelta(hours=2)}


@dataclass(frozen=True, slots=True)
class Throughput:
    """The ended attempts of a span, by steps, the oldest first. The first and the last step may be incomplete."""

    span: Span
    tallies: Sequence[Tally]


async def throughput(engine: Engine, span: Span, now: datetime) -> Throughput:
    """Return the attempts that have ended within a span."""
    return Throughput(span, filled(await engine.tallies(span.length, span.step), span, now))


def filled(tallies: Sequence[Tally], span: Span, now: datetime) -> list[Tally]:
    """Return a tally for each step of a span.

    The engine's clock may be ahead or behind: the steps end with its last tally if that is later than ``now``.
    """
    counted = {tally.at: tally.ends for tally in tallies}
    last = max([step_of(now, span.step), *counted])
    steps = [last - number * span.step for number in range(span.length // span.step + 1)]
    return [Tally(at, counted.get(at, Ends())) for at in reversed(steps)]
