"""The chart of ended attempts: successes above the line, failures and retries below it.

The geometry is decided here, and the template draws it. Labels are outside the drawing, so that it may be stretched.
"""

from dataclasses import dataclass
from datetime import datetime

from afterwards.core.tallies import Ends, total
from afterwards.dashboard.throughput import Span, Throughput

HEIGHT = 120
"""The height of the drawing, in its own units."""

BAR, GAP = 8.0, 2.0
"""The width of a bar, and the space between two."""

LEAST = 2.0
"""The least height of a bar that stands for anything: one failure among thousands of successes must be seen."""


TITLES = {Span.HOUR: "1 hour", Span.DAY: "24 hours", Span.WEEK: "7 days"}

_LABELS = {Span.HOUR: "%H:%M", Span.DAY: "%H:%M", Span.WEEK: "%b %d"}
"""The formats of the instants below a chart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a bar."""

    kind: str  # succeeded, failed or retried
    y: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step of time."""

    at: datetime
    until: datetime
    ends: Ends
    x: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, ready to be drawn."""

    span: Span
    bars: tuple[Bar, ...]
    width: float
    line: float  # the y of the line between successes and failures
    total: Ends
    peak: int  # the most attempts that ended within one step
    labels: tuple[str, ...]  # instants from the left to the right edge

    @property
    def success_rate(self) -> float | None:
        """The percentage of tasks that ended well; None if none ended."""
        ended = self.total.succeeded + self.total.failed
        return 100 * self.total.succeeded / ended if ended else None


def chart(found: Throughput) -> Chart:
    """Return the chart of what ended within a span."""
    ends = [tally.ends for tally in found.tallies]
    above = max(one.succeeded for one in ends)
    below = max(one.failed + one.retried for one in ends)
    line = _line(above, below)
    scale = min(line / max(above, 1), (HEIGHT - line) / max(below, 1))
    return Chart(
        span=found.span,
        bars=tuple(
            Bar(
                at=tally.at,
                until=tally.at + found.span.step,
                ends=tally.ends,
                x=place * (BAR + GAP),
                parts=_parts(tally.ends, line, scale),
            )
            for place, tally in enumerate(found.tallies)
        ),
        width=len(ends) * (BAR + GAP) - GAP,
        line=line,
        total=total(ends),
        peak=max(sum(one) for one in ends),
        labels=_labels(found),
    )


def _labels(found: Throughput) -> tuple[str, ...]:
    """Return instants from the left to the right edge, at equal distances."""
    first, last = found.tallies[0].at, found.tallies[-1].at
    return tuple(f"{first + (last - first) * quarter / 4:{_LABELS[found.span]}}" for quarter in range(5))


def _line(above: int, below: int) -> float:
    """Return the y of the line: the room is shared by what is drawn on each side of it."""
    if not above + below:
        return HEIGHT - 1.0
    least = HEIGHT / 8 if below else 1.0
    return round(min(HEIGHT - least, max(HEIGHT / 8, HEIGHT * above / (above + below))), 1)


def _parts(ends: Ends, line: float, scale: float) -> tuple[Part, ...]:
    succeeded, failed, retried = (round(max(LEAST, count * scale), 1) if count else 0.0 for count in ends)
    parts = (
        Part(kind="succeeded", y=round(max(0.0, line - succeeded), 1), height=succeeded),
        Part(kind="failed", y=line, height=failed),
        Part(kind="retried", y=round(line + failed, 1), height=retried),
    )
    return tuple(part for part in parts if part.height)
