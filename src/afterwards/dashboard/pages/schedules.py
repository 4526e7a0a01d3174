"""The schedules: those of the task functions that this process knows, and those that other processes have stored."""

from dataclasses import dataclass
from datetime import datetime

from afterwards.client.client import Client
from afterwards.core.schedule import StoredSchedule
from afterwards.dashboard import words
from afterwards.tasks.registry import registry
from afterwards.tasks.schedules import ScheduleDesk


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule in plain English."""

    name: str  # the task function's
    sentence: str
    expression: str
    next_fire: datetime | None
    last_fire: datetime | None
    paused: bool
    known: bool  # False: no function of this process has it, so it can be shown and not changed


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesPage:
    """What the template shows."""

    schedules: list[ScheduleRow]


async def schedules_page(client: Client) -> SchedulesPage:
    """Read the page: two calls of the engine."""
    known = [
        ScheduleRow(
            name=record.name,
            sentence=words.schedule(record.expression, record.tz),
            expression=record.expression,
            next_fire=record.next_fire,
            last_fire=record.last_fire,
            paused=record.paused,
            known=True,
        )
        for record in await ScheduleDesk(client).list()
    ]
    here = {function.identity for function in registry if function.schedule}
    stored = await (await client.open()).register_schedules({})
    others = [_of_another_process(one) for one in stored if one.name not in here]
    return SchedulesPage(schedules=sorted([*known, *others], key=lambda row: row.name))


def _of_another_process(stored: StoredSchedule) -> ScheduleRow:
    expression, tz = stored.expression, None
    if not expression.startswith("every "):
        expression, _, tz = expression.rpartition(" ")
    return ScheduleRow(
        name=stored.name,
        sentence=words.schedule(expression, tz),
        expression=expression,
        next_fire=None,
        last_fire=stored.last_fire,
        paused=stored.paused,
        known=False,
    )
