"""The schedules, in plain English."""

from dataclasses import dataclass
from datetime import datetime

from afterwards.dashboard import schedules, words
from afterwards.dashboard.site import Site
from afterwards.tasks.schedules import ScheduleRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule, and what its expression means."""

    name: str  # the task function's
    sentence: str
    expression: str
    next_fire: datetime | None  # None: it is paused, or only another process knows
    last_fire: datetime | None
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesPage:
    """The values for the template."""

    schedules: list[ScheduleRow]


async def schedules_page(site: Site) -> SchedulesPage:
    """Read the page: two calls of the engine."""
    return SchedulesPage(schedules=[_row(record) for record in await schedules.schedules(site)])


def _row(record: ScheduleRecord) -> ScheduleRow:
    return ScheduleRow(
        name=record.name,
        sentence=words.schedule(record.expression, record.tz),
        expression=record.expression,
        next_fire=record.next_fire,
        last_fire=record.last_fire,
        paused=record.paused,
    )
