"""Fire schedules that are due. Any number of workers may try: the engine accepts each fire once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from afterwards import telemetry
from afterwards.core.schedule import Missed, Schedule, StoredSchedule, due
from afterwards.core.task import NewTask
from afterwards.engine import Engine, Fire
from afterwards.execution.retrying import persist

LONGEST_SLEEP = timedelta(seconds=5)
"""Longest sleep: the clock may be changed meanwhile, or the machine suspended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """The schedule of a task function, and how to make the task of one fire."""

    name: str
    schedule: Schedule
    missed: Missed
    call: Callable[[], NewTask]


Timetable = Callable[[], Sequence[Scheduled]]
"""The scheduled functions of this process."""


class Scheduler:
    """Runs in every worker. Several at a time are harmless: the engine accepts each fire once."""

    def __init__(self, engine: Engine, timetable: Timetable, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._timetable = timetable
        self._clock = clock
        self._registered = False
        self._told: dict[str, datetime] = {}  # start of the missed fires, as last logged

    @property
    def needed(self) -> bool:
        """Return whether there is any schedule."""
        return bool(self._timetable())

    async def run(self) -> None:
        """Fire schedules until cancelled."""
        while True:
            next_look = self._clock() + LONGEST_SLEEP
            try:
                next_look = await persist("fire schedules", self.fire)
            except Exception as error:  # a worker must never stop firing because of a bug
                telemetry.loop_broken("fire schedules", error)
            sleep = min(next_look - self._clock(), LONGEST_SLEEP)
            await asyncio.sleep(max(0.0, sleep.total_seconds()))

    async def fire(self) -> datetime:
        """Fire due schedules. Return when the next one will be due."""
        timetable = {one.name: one for one in self._timetable()}
        stored = await self._kept(timetable)
        now = self._clock()
        fires: list[Fire] = []
        next_look = now + LONGEST_SLEEP
        for kept in stored:
            scheduled = timetable[kept.name]
            after = max(kept.after, now) if kept.paused else kept.after
            found = due(scheduled.schedule, scheduled.missed, after, now)
            try:
                fires += [Fire(kept.name, at, scheduled.call()) for at in found.fires]
            except BaseException as error:  # user code, for example of a key: it must not stop the other schedules
                telemetry.not_fired(kept.name, error)
            next_look = min(next_look, found.next)
            if found.passed_over:
                self._log_passed_over(kept, scheduled.missed)
        await self._engine.fire(fires)
        return next_look

    async def _kept(self, timetable: Mapping[str, Scheduled]) -> list[StoredSchedule]:
        """Return the schedules as the engine keeps them, after registering those of this deploy."""
        stored = await self._engine.register_schedules({}) if self._registered else []
        if not timetable.keys() <= {one.name for one in stored}:  # at the start, or after the store was replaced
            expressions = {name: str(one.schedule) for name, one in timetable.items()}
            stored = await self._engine.register_schedules(expressions)
            self._registered = True
        return [one for one in stored if one.name in timetable]

    def _log_passed_over(self, kept: StoredSchedule, missed: Missed) -> None:
        """Log once that fires were missed: nothing is dropped silently."""
        if self._told.get(kept.name) != kept.after:
            self._told[kept.name] = kept.after
            telemetry.passed_over(kept.name, kept.after, missed)
