"""The engine for tests, and the reference for the others: a dictionary."""

import threading
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import dropwhile, islice
from types import TracebackType
from typing import Self

from afterwards.core import lifecycle, schedule
from afterwards.core.lifecycle import Settled
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim, Fire, Heartbeat, Held, Query, Stats
from afterwards.engines.wakeup import Wakeup


class MemoryEngine:
    """Tasks in this process; gone with it."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._tasks: dict[str, Task] = {}  # in the order stored
        self._schedules: dict[str, StoredSchedule] = {}
        self._lock = threading.RLock()  # heartbeats come from another thread
        self._wakeup = Wakeup()

    @property
    def tasks(self) -> list[Task]:
        """All tasks, in the order stored."""
        with self._lock:
            return list(self._tasks.values())

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        with self._lock:
            now = self._clock()
            slots = claim.limit if claim and not self._candidates(claim, now) else 0
            known = ChainMap[str, Task]({}, self._tasks)  # the new ones are kept apart: all are stored, or none
            for new in tasks:
                if new.id in known:
                    continue
                task = lifecycle.store(new, known.get(new.after or ""), now)
                if claim and slots and lifecycle.could_start(new, task) and claim.serves(task):
                    task = lifecycle.claim(task, claim.worker, claim.lease, now)
                    slots -= 1
                known[new.id] = task
            for task in known.maps[0].values():
                self._put(task)
            return [self._tasks[new.id] for new in tasks]

    async def publish(self, leases: Sequence[Lease], *, held: bool = False, run_at: datetime | None = None) -> None:
        change = lifecycle.hold if held else partial(lifecycle.publish, run_at=run_at)
        with self._lock:
            for lease in leases:
                task = self._tasks.get(lease.task_id)
                if task and task.attempt == lease.attempt and task.state is State.SCHEDULED:
                    self._put(change(task, self._clock()))

    async def get(self, ids: Sequence[str]) -> list[Task]:
        with self._lock:
            return [self._tasks[id] for id in ids if id in self._tasks]

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        with self._lock:
            for id in ids:
                if id in self._tasks:
                    self._put(lifecycle.cancel(self._tasks[id], reason, self._clock()))
            return await self.get(ids)

    async def claim(self, claim: Claim) -> list[Task]:
        self._wakeup.clear()
        with self._lock:
            now = self._clock()
            taken = [
                lifecycle.claim(task, claim.worker, claim.lease, now)
                for task in islice(_few_suspects(self._candidates(claim, now), claim.suspects), claim.limit)
            ]
            for task in taken:
                self._put(task)
            return taken

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        held = []
        with self._lock:
            for beat in beats:
                task = self._tasks.get(beat.lease.task_id)
                if task and task.state is State.RUNNING and task.attempt == beat.lease.attempt:
                    progress = task.progress if beat.progress is None else beat.progress
                    self._put(replace(task, lease_until=self._clock() + lease, progress=progress))
                    held.append(Held(beat.lease, task.cancel_requested))
        return held

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        refused = []
        with self._lock:
            for one in settled:
                stored = self._tasks.get(one.lease.task_id)
                after = stored and lifecycle.finish(stored, one, self._clock())
                if after:
                    self._put(after)
                    if one.then and one.then.id not in self._tasks:
                        self._put(lifecycle.store(one.then, None, self._clock()))
                else:
                    refused.append(one.lease)
        return refused

    async def expired(self, limit: int) -> list[Task]:
        with self._lock:
            now = self._clock()
            running = (task for task in self._tasks.values() if task.state is State.RUNNING)
            lost = (task for task in running if task.lease_until and task.lease_until <= now)
            return list(islice(lost, limit))

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        wanted, queued = set(ids), []
        with self._lock:
            for id in [id for id in self._tasks if id in wanted]:  # as stored: a task before those behind it
                task = self._tasks[id]
                if task.state.finished and not task.plain:
                    queued.append(id)
                    self._put(lifecycle.requeue(task, self._clock()))
                    self._revive_behind(task)
            return await self.get(queued)

    async def find(self, query: Query) -> list[Task]:
        with self._lock:
            newest = list(reversed(self._tasks.values()))
        if query.before is not None:
            newest = list(dropwhile(lambda task: task.id != query.before, newest))[1:]
        return list(islice((task for task in newest if _matches(task, query)), query.limit))

    async def stats(self) -> Stats:
        counts: dict[tuple[str, State], int] = {}
        with self._lock:
            for task in self._tasks.values():
                key = task.queue, task.state
                counts[key] = counts.get(key, 0) + 1
            queued = [task.created_at for task in self._tasks.values() if task.state is State.QUEUED]
        return Stats(counts=counts, oldest=self._clock() - min(queued) if queued else None)

    async def prune(self, limit: int) -> int:
        with self._lock:
            now = self._clock()
            over = (t.id for t in self._tasks.values() if t.finished_at and now - t.finished_at >= t.retention)
            doomed = list(islice(over, limit))
            for id in doomed:
                del self._tasks[id]
            return len(doomed)

    async def wait(self, timeout: timedelta) -> None:
        with self._lock:
            scheduled = [t.run_at for t in self._tasks.values() if t.state is State.SCHEDULED and t.run_at]
        until_due = min(scheduled) - self._clock() if scheduled else timeout
        await self._wakeup.wait(max(timedelta(), min(timeout, until_due)))

    async def register_schedules(self, expressions: Mapping[str, str]) -> None:
        with self._lock:
            for name, expression in expressions.items():
                known = self._schedules.get(name)
                self._schedules[name] = schedule.registered(known, name, expression, self._clock())

    async def schedules(self, names: Collection[str]) -> list[StoredSchedule]:
        with self._lock:
            return [self._schedules[name] for name in sorted(set(names)) if name in self._schedules]

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        tasks = []
        with self._lock:
            for one in fires:
                stored = self._schedules.get(one.schedule)
                after = stored and schedule.fired(stored, one.at)
                if after:
                    self._schedules[one.schedule] = after
                    tasks.append(one.task)
            return await self.enqueue(tasks)

    async def pause_schedules(self, names: Collection[str]) -> None:
        self._change_schedules(names, schedule.paused)

    async def resume_schedules(self, names: Collection[str]) -> None:
        self._change_schedules(names, partial(schedule.resumed, now=self._clock()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the tasks: the same engine may be opened again."""

    def _change_schedules(self, names: Collection[str], change: Callable[[StoredSchedule], StoredSchedule]) -> None:
        with self._lock:
            for stored in [self._schedules[name] for name in names if name in self._schedules]:
                self._schedules[stored.name] = change(stored)

    def _put(self, task: Task) -> None:
        """Store a task; when that finishes it, decide on those behind it."""
        changed = [task]
        for task in changed:
            self._tasks[task.id] = task
            if task.state in (State.QUEUED, State.SCHEDULED):  # or what is due next has come nearer
                self._wakeup.set()
            if task.state.finished:
                waiting = (behind for behind in self._behind(task) if behind.state is State.WAITING)
                changed += [lifecycle.follow(behind, task, self._clock()) for behind in waiting]

    def _revive_behind(self, task: Task) -> None:
        revived = [task]
        for task in revived:
            for behind in filter(lifecycle.cancelled_for_another, self._behind(task)):
                self._put(lifecycle.revive(behind))
                revived.append(behind)

    def _behind(self, task: Task) -> list[Task]:
        return [other for other in self._tasks.values() if other.after == task.id]

    def _candidates(self, claim: Claim, now: datetime) -> list[Task]:
        """What the worker could take, best first; due tasks are queued on the way."""
        for task in list(self._tasks.values()):
            if task.state is State.SCHEDULED and lifecycle.due(task, now).state is State.QUEUED:
                self._put(lifecycle.due(task, now))
        queued = (task for task in self._tasks.values() if task.state is State.QUEUED and claim.serves(task))
        return sorted(queued, key=lambda task: -task.priority)


def _few_suspects(tasks: Iterable[Task], allowed: int) -> Iterable[Task]:
    for task in tasks:
        if task.suspect:
            allowed -= 1
        if not task.suspect or allowed >= 0:
            yield task


def _matches(task: Task, query: Query) -> bool:
    return (
        (query.states is None or task.state in query.states)
        and (query.names is None or task.name in query.names)
        and (query.queues is None or task.queue in query.queues)
    )
