"""Fire schedules that are due. Any number of workers may try, for the engine lets one of them."""

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
"""How long to sleep at most, for the clock may be changed, or the machine suspended, meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """When a task function runs by itself, and how to make the task of one fire."""

    name: str
    schedule: Schedule
    missed: Missed
    call: Callable[[], NewTask]


Timetable = Callable[[], Sequence[Scheduled]]
"""The scheduled functions of this process."""


class Scheduler:
    """Runs in every worker; several at a time do no harm, for the engine lets each fire through once."""

    def __init__(self, engine: Engine, timetable: Timetable, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._timetable = timetable
        self._clock = clock
        self._registered = False
        self._told: dict[str, datetime] = {}  # since when fires were passed over, as it was logged

    @property
    def needed(self) -> bool:
        """Whether there is any schedule."""
        return bool(self._timetable())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            next_look = self._clock() + LONGEST_SLEEP
            try:
                next_look = await persist("fire schedules", self.fire)
            except Exception as error:  # a worker that stopped firing would be worse than any bug
                telemetry.loop_broken("fire schedules", error)
            sleep = min(next_look - self._clock(), LONGEST_SLEEP)
            await asyncio.sleep(max(0.0, sleep.total_seconds()))

    async def fire(self) -> datetime:
        """Fire what is due. Returns when something will be next."""
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
            except Exception as error:  # the user's code, as a key's: it must not stop the others
                telemetry.not_fired(kept.name, error)
            next_look = min(next_look, found.next)
            if found.passed_over:
                self._log_passed_over(kept, scheduled.missed)
        await self._engine.fire(fires)
        return next_look

    async def _kept(self, timetable: Mapping[str, Scheduled]) -> list[StoredSchedule]:
        """The schedules as the engine keeps them, once this deploy has told it what they are."""
        stored = await self._engine.register_schedules({}) if self._registered else []
        if not timetable.keys() <= {one.name for one in stored}:  # at the start, or after the store was replaced
            expressions = {name: str(one.schedule) for name, one in timetable.items()}
            stored = await self._engine.register_schedules(expressions)
            self._registered = True
        return [one for one in stored if one.name in timetable]

    def _log_passed_over(self, kept: StoredSchedule, missed: Missed) -> None:
        """Say once that fires are passed over: nothing is dropped in silence."""
        if self._told.get(kept.name) != kept.after:
            self._told[kept.name] = kept.after
            telemetry.passed_over(kept.name, kept.after, missed)
