"""Schedules, in memory."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from afterwards.core import schedule
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import NewTask
from afterwards.engine import Fire
from afterwards.engines.memory.kept import Kept


class KeptSchedules(Kept):
    """The schedules of task functions."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self._schedules: dict[str, StoredSchedule] = {}

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        return self._registered(expressions, self._clock())

    def _registered(self, expressions: Mapping[str, str], now: datetime) -> list[StoredSchedule]:
        with self._lock:
            for name, expression in expressions.items():
                known = self._schedules.get(name)
                self._schedules[name] = schedule.registered(known, name, expression, now)
            return [stored for _, stored in sorted(self._schedules.items())]

    @property
    def _paused_schedules(self) -> frozenset[str]:
        return frozenset(name for name, stored in self._schedules.items() if stored.paused)

    def _pause_schedules(self, names: Collection[str]) -> None:
        self._change_schedules(names, schedule.paused)

    def _resume_schedules(self, names: Collection[str]) -> None:
        self._change_schedules(names, partial(schedule.resumed, now=self._clock()))

    def _put_schedules_right(self, now: datetime) -> bool:
        right = {name: schedule.put_right(stored, now) for name, stored in self._schedules.items()}
        before, self._schedules = self._schedules, right
        return right != before

    def _advanced(self, fires: Sequence[Fire]) -> list[NewTask]:
        """Advance the schedules. Returns the tasks of fires that are later than all earlier ones."""
        tasks = []
        for one in fires:
            stored = self._schedules.get(one.schedule)
            after = stored and schedule.fired(stored, one.at)
            if after:
                self._schedules[one.schedule] = after
                tasks.append(one.task)
        return tasks

    def _change_schedules(self, names: Collection[str], change: Callable[[StoredSchedule], StoredSchedule]) -> None:
        for stored in [self._schedules[name] for name in names if name in self._schedules]:
            self._schedules[stored.name] = change(stored)
