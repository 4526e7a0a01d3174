"""``tasks.schedules``: the schedules of task functions, listed, paused, run now."""

from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, TypeVar, overload

from afterwards.client.client import Client, current
from afterwards.client.handle import TaskHandle
from afterwards.core.errors import InvalidOption, NotScheduled
from afterwards.core.schedule import Cron, Schedule, StoredSchedule, next_fire
from afterwards.engine import Paused
from afterwards.tasks.function import TaskFunction
from afterwards.tasks.registry import registry

R = TypeVar("R")

AnyFunction = TaskFunction[Any, Any, Any] | str
"""A scheduled task function, or its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """The current state of a schedule. Instants are aware, in UTC."""

    name: str  # the task function's name
    expression: str  # "0 3 * * *", or "every 0:05:00"
    tz: str | None  # the time zone of a cron expression
    next_fire: datetime | None  # None while it is paused
    last_fire: datetime | None  # None: it has not fired yet
    paused: bool


Records = list[ScheduleRecord]


class ScheduleDesk:
    """The schedules of an installation. Changes apply to all its processes."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> Records:
        """The schedules of the task functions that this process knows, by name."""
        known = [(function.name, function.identity, function.schedule) for function in registry if function.schedule]
        engine = await self._client.open()
        stored = {one.name: one for one in await engine.register_schedules({})}
        now = self._client.now()
        return [
            _record(name, schedule, stored.get(identity), now)
            for name, identity, schedule in sorted(known, key=itemgetter(0))
        ]

    async def pause(self, function: AnyFunction) -> None:
        """Stop firing a schedule, in all processes, until it is resumed; also after restarts and deploys.

        Tasks that it has stored already run. Raises NotScheduled, UnknownFunction.
        """
        found, schedule = _find(function)
        engine = await self._client.open()
        await engine.register_schedules({found.identity: str(schedule)})  # perhaps no worker has registered it yet
        await engine.pause(Paused(schedules=frozenset({found.identity})))

    async def resume(self, function: AnyFunction) -> None:
        """Fire a schedule again, from now on. Fires missed meanwhile are not caught up. Raises as ``pause``."""
        found, _ = _find(function)
        await (await self._client.open()).resume(Paused(schedules=frozenset({found.identity})))

    @overload
    async def run_now(self, function: TaskFunction[Any, Any, R]) -> TaskHandle[R]: ...
    @overload
    async def run_now(self, function: str) -> TaskHandle[Any]: ...
    async def run_now(self, function: AnyFunction) -> TaskHandle[Any]:
        """Store a call now, independent of the schedule, also while it is paused. Raises as ``pause``."""
        found, _ = _find(function)
        before = current.set(self._client)
        try:
            return await found.enqueue()
        finally:
            current.reset(before)


def _record(name: str, schedule: Schedule, kept: StoredSchedule | None, now: datetime) -> ScheduleRecord:
    """``kept`` is None before any worker has seen the schedule."""
    paused = kept is not None and kept.paused
    return ScheduleRecord(
        name=name,
        expression=schedule.expression if isinstance(schedule, Cron) else str(schedule),
        tz=schedule.tz if isinstance(schedule, Cron) else None,
        next_fire=None if paused else next_fire(schedule, max(now, kept.after) if kept else now),
        last_fire=kept.last_fire if kept else None,
        paused=paused,
    )


def _find(function: AnyFunction) -> tuple[TaskFunction[Any, Any, Any], Schedule]:
    if not isinstance(function, TaskFunction | str):
        raise InvalidOption(f"{function!r} is no task function: give one, or its name")
    found = registry.get(function) if isinstance(function, str) else function
    if found.schedule is None:
        raise NotScheduled(found.name)
    return found, found.schedule
