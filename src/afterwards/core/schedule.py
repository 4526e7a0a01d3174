"""Schedules of task functions: their fire times, and which missed fires run later."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from afterwards.core.clock_correction import corrected
from afterwards.core.errors import InvalidOption
from afterwards.core.spans import as_span
from afterwards.core.task import NewTask

SHORTEST = timedelta(seconds=1)

LATE_LIMIT = timedelta(minutes=1)
"""A fire that is older than this counts as missed."""

MOST_AT_ONCE = 100
"""The most missed fires that one write stores tasks for."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVERY = "every "
_FIRST_LOOK = timedelta(minutes=1)
_FURTHER_BACK = 8


class Missed(StrEnum):
    """The policy for fires at whose time no worker ran: which of them run later."""

    LATEST = "latest"  # one, however many were missed
    ALL = "all"  # each, oldest first
    SKIP = "skip"  # none


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule that fires where a cron expression matches the local time of a zone, as cronsim reads it."""

    expression: str
    tz: str = "UTC"  # an IANA name

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise InvalidOption(f'cron={self.expression!r}: give an expression as text, as "0 3 * * *"')
        object.__setattr__(self, "expression", " ".join(self.expression.split()))
        _zone(self.tz)
        if next(self._local(_EPOCH), None) is None:
            raise InvalidOption(f"cron={self.expression!r} never fires: no such day exists")

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the fires after an instant, in order, in UTC."""
        for local in self._local(after):  # pragma: no branch (there is always another one)
            at = local.astimezone(UTC)
            if at > after:  # in an hour that occurs twice, a fixed time fires only the first time
                yield at
                after = at

    def _local(self, after: datetime) -> Iterator[datetime]:
        # Imported here because cronsim is an optional dependency.
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise InvalidOption(
                f'cron={self.expression!r} needs the package cronsim: pip install "afterwards[cron]"'
            ) from None
        try:
            return CronSim(self.expression, after.astimezone(_zone(self.tz)))
        except CronSimError as error:
            raise InvalidOption(
                f"cron={self.expression!r}: {error}: give minute, hour, day of month, month and day of week, "
                'as "0 3 * * *" for three every night'
            ) from None

    def __str__(self) -> str:
        return f"{self.expression} {self.tz}"


@dataclass(frozen=True, slots=True)
class Every:
    """A schedule that fires at multiples of a span since 1970 (UTC), so that all processes agree."""

    span: timedelta

    def __post_init__(self) -> None:
        if self.span < SHORTEST:
            raise InvalidOption(f"every={self.span.total_seconds():g}: give seconds or a timedelta, at least 1 second")

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the fires after an instant, in order, in UTC."""
        at = after - (after - _EPOCH) % self.span
        while True:
            at += self.span
            yield at

    def __str__(self) -> str:
        return f"{_EVERY}{self.span}"


Schedule = Cron | Every


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A schedule as an engine keeps it."""

    name: str  # the task function's
    expression: str  # of the latest deploy; a changed one starts anew
    after: datetime  # fires up to this instant are handled
    last_fire: datetime | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Fire:
    """One fire of a schedule, and its task."""

    schedule: str  # the task function's name
    at: datetime
    task: NewTask


@dataclass(frozen=True, slots=True)
class Due:
    """The fires that are due now, oldest first, the next fire, and whether older fires are skipped."""

    fires: tuple[datetime, ...]
    next: datetime
    passed_over: bool = False


def wanted(
    *,
    cron: str | None = None,
    tz: str | None = None,
    every: float | timedelta | None = None,
    missed: str | None = None,
) -> tuple[Schedule | None, Missed]:
    """Return the schedule and the policy for missed fires that settings ask for. Raises InvalidOption."""
    if cron is not None and every is not None:
        raise InvalidOption(f"cron={cron!r} and every={every!r} are both given: give one of them")
    if tz is not None and cron is None:
        raise InvalidOption(f"tz={tz!r} is the time zone of a cron expression: give cron too, or leave tz out")
    if missed is not None and cron is None and every is None:
        raise InvalidOption(f"missed={missed!r} needs a schedule: give cron or every too, or leave missed out")
    policy = _policy(Missed.LATEST if missed is None else missed)
    if cron is not None:
        return Cron(cron, "UTC" if tz is None else tz), policy
    return None if every is None else Every(as_span(every, "every")), policy


def of_text(text: str) -> Schedule:
    """Return the schedule of which this is the text. Raises InvalidOption.

    >>> of_text("every 1 day, 0:05:00")
    Every(span=datetime.timedelta(days=1, seconds=300))
    """
    expression, tz = expression_and_zone(text)
    return _every(text) if tz is None else Cron(expression, tz)


def expression_and_zone(text: str) -> tuple[str, str | None]:
    """Return the parts of a schedule's text; a span has no zone.

    >>> expression_and_zone("0 3 * * * Europe/Berlin"), expression_and_zone("every 0:05:00")
    (('0 3 * * *', 'Europe/Berlin'), ('every 0:05:00', None))
    """
    if text.startswith(_EVERY):
        return text, None
    expression, _, tz = text.rpartition(" ")
    return expression, tz


def fires(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the fires later than ``after``, up to and including ``until``."""
    return takewhile(lambda at: at <= until, schedule.times(after))


def next_fire(schedule: Schedule, after: datetime) -> datetime:
    return next(schedule.times(after))


def latest_fire(schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """Return the last fire in the span, None if there is none. It computes few fires, however long the span."""
    span = _FIRST_LOOK
    while True:
        start = max(after, until - span)
        found = deque(fires(schedule, start, until), maxlen=1)
        if found or start == after:
            return found[0] if found else None
        span *= _FURTHER_BACK


def due(schedule: Schedule, missed: Missed, after: datetime, now: datetime) -> Due:
    """Return the fires that are due, given that fires up to ``after`` are handled."""
    now = max(now, after)  # the clock may have been set back
    if missed is Missed.ALL:
        some = tuple(islice(fires(schedule, after, now), MOST_AT_ONCE))
        return Due(some, next_fire(schedule, some[-1] if len(some) == MOST_AT_ONCE else now))
    latest = latest_fire(schedule, max(after, now - LATE_LIMIT) if missed is Missed.SKIP else after, now)
    first = next_fire(schedule, after)
    return Due(
        () if latest is None else (latest,),
        next_fire(schedule, now),
        passed_over=first <= now and first != latest,
    )


# Transitions of a stored schedule. Engines store what these return, or translate them.


def registered(stored: StoredSchedule | None, name: str, expression: str, now: datetime) -> StoredSchedule:
    """Return the schedule after a deploy. A new or changed one has no missed fires."""
    if stored is None:
        return StoredSchedule(name=name, expression=expression, after=now)
    return stored if stored.expression == expression else replace(stored, expression=expression, after=now)


def fired(stored: StoredSchedule, at: datetime) -> StoredSchedule | None:
    """Return the schedule after a fire, None if the fire is already handled or the schedule is paused."""
    return None if stored.paused or at <= stored.after else replace(stored, after=at, last_fire=at)


def put_right(stored: StoredSchedule, now: datetime) -> StoredSchedule:
    """Return the schedule after a clock correction: fires later than now are no longer handled."""
    return replace(stored, after=corrected(stored.after, now))


def moved(known: StoredSchedule | None, arriving: StoredSchedule) -> StoredSchedule:
    """Return the schedule after one of its name has come from another engine. No fire is handled twice.

    A schedule that has never fired here goes on where the other one was: it was registered while that one was on its
    way. Of two expressions, the one here is of the later deploy.
    """
    if known is None:
        return arriving
    both = replace(known, paused=known.paused or arriving.paused)
    if known.expression != arriving.expression:
        return both
    if known.last_fire is None:
        return replace(both, after=arriving.after, last_fire=arriving.last_fire)
    last_fires = [known.last_fire, *([arriving.last_fire] if arriving.last_fire else [])]
    return replace(both, after=max(known.after, arriving.after), last_fire=max(last_fires))


def paused(stored: StoredSchedule) -> StoredSchedule:
    return replace(stored, paused=True)


def resumed(stored: StoredSchedule, now: datetime) -> StoredSchedule:
    """Return the schedule after its pause. Fires missed during the pause are skipped."""
    return replace(stored, paused=False, after=max(corrected(stored.after, now), now)) if stored.paused else stored


def _every(text: str) -> Every:
    days, _, clock = text.removeprefix(_EVERY).rpartition(", ")
    try:
        hours, minutes, seconds = clock.split(":")
        span = timedelta(
            days=int(days.split()[0]) if days else 0, hours=int(hours), minutes=int(minutes), seconds=float(seconds)
        )
    except ValueError as error:
        raise InvalidOption(f"{text!r} is no schedule") from error
    return Every(span)


def _policy(missed: str) -> Missed:
    try:
        return Missed(missed)
    except ValueError:
        known = ", ".join(repr(str(policy)) for policy in Missed)
        raise InvalidOption(f"missed={missed!r}: give one of {known}") from None


def _zone(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, AttributeError, OSError):  # ZoneInfo raises any of these for wrong input
        raise InvalidOption(
            f'tz={tz!r} is not a known time zone: give an IANA name, as "Europe/Rome" '
            "(where the system has none, pip install tzdata)"
        ) from None
