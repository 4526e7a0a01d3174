"""The engine for tests, and the reference for the others: a dictionary."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from afterwards.core import lifecycle, limits
from afterwards.core.correction import corrected, put_back
from afterwards.core.errors import EngineError
from afterwards.core.lifecycle import Settled
from afterwards.core.limits import Group, Room, Used
from afterwards.core.routing import Backlog, Route
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import NO_TIMES, Claim, Fire, Heartbeat, Held, Paused, Query, Stats, Transaction
from afterwards.engines.memory.files import KeptFiles
from afterwards.engines.memory.schedules import KeptSchedules
from afterwards.engines.memory.storing import Storing, refuse_full, unfinished
from afterwards.engines.memory.workers import KeptWorkers
from afterwards.engines.wakeup import Wakeup


class MemoryEngine(KeptSchedules, KeptFiles, KeptWorkers):
    """Tasks in this process; gone with it."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(clock=clock)
        self._tasks: dict[str, Task] = {}  # in the order stored
        self._followers: dict[str, list[str]] = {}  # those behind each task, in the order stored
        self._aliases: dict[str, str] = {}  # ids of calls that a uniqueness rule answered
        self._starts: dict[Group, list[Start]] = {}  # of functions with a rate, the oldest first
        self._paused = Paused()
        self._room_at: datetime | None = None  # when a rate that was used up lets another one start
        self._queued_at: dict[str, datetime] = {}  # of the queued tasks
        self._waits_since: dict[str, datetime] = {}  # of the scheduled ones that wait for no instant of the caller's
        self._wakeup = Wakeup()

    @property
    def tasks(self) -> list[Task]:
        """All tasks, in the order stored."""
        with self._lock:
            return list(self._tasks.values())

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        with self._lock:
            now = self._clock()
            storing = self._made(tasks, claim, now)
            refuse_full(tasks, storing)
            self._aliases.update(storing.aliases.maps[0])
            for task in storing.tasks.maps[0].values():
                self._put(task)
                if task.after is not None:
                    self._followers.setdefault(task.after, []).append(task.id)
            for new in tasks:
                if new.run_at and new.id in storing.tasks.maps[0]:  # scheduled for an instant of the caller's own
                    self._waits_since.pop(new.id, None)
            return [self._tasks[self._resolved(new.id)] for new in tasks]

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        with self._lock:
            refuse_full(tasks, self._made(tasks, None, self._clock()))

    def _made(self, tasks: Sequence[NewTask], claim: Claim | None, now: datetime) -> Storing:
        """Make the records of new tasks, apart from what is stored: all are stored, or none."""
        slots = claim.limit if claim and not self._anything_for(claim, now) else 0
        storing = Storing(self._tasks, self._aliases)
        for asked in tasks:
            new = storing.wanted(asked)
            if new is None:
                continue
            task = lifecycle.store(new, storing.tasks.get(new.after or ""), now)
            if claim and slots and self._could_lease(claim, new, task):
                task = lifecycle.claim(task, claim.worker, claim.lease, now)
                slots -= 1
            storing.tasks[new.id] = task
        return storing

    async def delete_files(self, tasks: Sequence[str]) -> None:
        with self._lock:
            self._delete_files(frozenset(tasks), self._tasks)

    def join(self, transaction: Transaction) -> None:
        """Tasks in memory lie beside nobody's rows."""

    async def publish(
        self, leases: Sequence[Lease], *, held: bool = False, run_at: Mapping[Lease, datetime] = NO_TIMES
    ) -> None:
        with self._lock:
            for lease in leases:
                task = self._tasks.get(lease.task_id)
                if task and task.attempt == lease.attempt and task.state is State.SCHEDULED:
                    now, relative = self._clock(), lease.task_id in self._waits_since
                    self._put(lifecycle.hold(task, now) if held else lifecycle.publish(task, now, run_at.get(lease)))
                    if not relative:  # held for an instant of the caller's own
                        self._waits_since.pop(lease.task_id, None)

    async def get(self, ids: Sequence[str]) -> list[Task]:
        with self._lock:
            return [self._tasks[id] for id in map(self._resolved, ids) if id in self._tasks]

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        with self._lock:
            for id in map(self._resolved, ids):
                if id in self._tasks:
                    self._put(lifecycle.cancel(self._tasks[id], reason, self._clock()))
            return await self.get(ids)

    async def claim(self, claim: Claim) -> list[Task]:
        self._wakeup.clear()
        with self._lock:
            now = self._clock()
            self._bring_back(claim.ids or ())
            self._expire(now)
            candidates = self._candidates(claim, now)
            rooms = self._rooms(claim, candidates, now)
            chosen = limits.admit(
                [(task, task.suspect, _group(task, claim)) for task in candidates],
                rooms,
                limit=claim.limit,
                suspects=claim.suspects,
            )
            taken = [lifecycle.claim(task, claim.worker, claim.lease, now) for task in chosen]
            for task in taken:
                self._put(task)
            taken = [replace(task, failures=()) for task in taken]
            self._note_starts(claim, taken, now)
            self._room_at = limits.next_room(self._rooms(claim, candidates, now).values())
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
                    if one.then:
                        await self.enqueue([one.then])
                else:
                    refused.append(one.lease)
        return refused

    async def expired(self, limit: int) -> list[Task]:
        with self._lock:
            now = self._clock()
            running = (task for task in self._tasks.values() if task.state is State.RUNNING)
            lost = (task for task in running if task.lease_until and task.lease_until <= now)
            return [replace(task, failures=()) for task in islice(lost, limit)]

    async def put_right(self, lease: timedelta) -> bool:
        with self._lock:
            now, any_wrong = self._clock(), False
            for task in list(self._tasks.values()):
                since = self._waits_since.get(task.id)
                right = lifecycle.put_right(task, since, now, lease)
                if right != task:
                    any_wrong, queued_at = True, self._queued_at.get(task.id)
                    self._put(right)
                    if queued_at:
                        self._queued_at[task.id] = queued_at
                if since and put_back(since, now):
                    self._waits_since[task.id] = now
            self._queued_at = {id: corrected(since, now) for id, since in self._queued_at.items()}
            self._put_workers_right(now)
            return self._put_schedules_right(now) or any_wrong

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        with self._lock:
            wanted, queued = set(map(self._resolved, ids)), []
            for id in [id for id in self._tasks if id in wanted]:  # as stored: a task before those behind it
                task = self._tasks[id]
                if task.state.finished and not task.plain and self._is_free(task):
                    queued.append(id)
                    self._put(lifecycle.requeue(task, self._clock()))
                    self._revive_behind(task)
            return await self.get(queued)

    async def find(self, query: Query) -> list[Task]:
        with self._lock:
            newest = list(reversed(self._tasks.values()))
        if query.before is not None:
            newest = list(dropwhile(lambda task: task.id != query.before, newest))[1:]
        return [_listed(task) for task in islice((task for task in newest if _matches(task, query)), query.limit)]

    async def stats(self) -> Stats:
        counts: dict[tuple[str, State], int] = {}
        with self._lock:
            for task in self._tasks.values():
                key = task.queue, task.state
                counts[key] = counts.get(key, 0) + 1
            queued = [t.created_at for t in self._tasks.values() if t.state is State.QUEUED and t.set_aside is None]
        return Stats(counts=counts, oldest=self._clock() - min(queued) if queued else None)

    async def prune(self, limit: int) -> int:
        with self._lock:
            now = self._clock()
            over = (t.id for t in self._tasks.values() if t.finished_at and now - t.finished_at >= t.retention)
            doomed = list(islice(over, limit))
            for id in doomed:
                del self._tasks[id]
                self._followers.pop(id, None)
                self._waits_since.pop(id, None)
            self._aliases = {id: task for id, task in self._aliases.items() if task in self._tasks}
            self._starts = {
                group: left for group, starts in self._starts.items() if (left := [s for s in starts if s.until > now])
            }
            self._prune_files(frozenset(doomed), self._tasks, now)
            self._prune_workers(now)
            return len(doomed)

    async def backup(self, path: Path) -> None:
        raise EngineError(f"tasks in memory are in no file, so none can be copied to {path}: give sqlite:///file.db")

    async def wait(self, timeout: timedelta) -> None:
        with self._lock:
            coming = [t.run_at for t in self._tasks.values() if t.state is State.SCHEDULED and t.run_at]
            coming += [self._room_at] if self._room_at else []
        until = min(coming) - self._clock() if coming else timeout
        await self._wakeup.wait(max(timedelta(), min(timeout, until)))

    async def pause(self, paused: Paused) -> None:
        with self._lock:
            self._paused |= paused

    async def resume(self, paused: Paused) -> None:
        with self._lock:
            self._paused -= paused
            self._wakeup.set()

    async def paused(self) -> Paused:
        return self._paused

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        with self._lock:
            return await self.enqueue(self._advanced(fires))

    async def routes(self) -> list[Route]:
        return sorted({route for route, _ in self._claimable()})

    async def backlog(self, routes: Collection[Route], waited: timedelta) -> list[Backlog]:
        latest = self._clock() - waited
        found: dict[Route, list[datetime]] = {}
        for route, since in self._claimable():
            if route in routes and since <= latest:
                found.setdefault(route, []).append(since)
        return [Backlog(route=route, count=len(found[route]), since=min(found[route])) for route in sorted(found)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the tasks: the same engine may be opened again."""

    def _put(self, task: Task) -> None:
        """Store a task; when that finishes it, decide on those behind it."""
        changed = [task]
        for task in changed:
            self._tasks[task.id] = task
            self._queued_at.pop(task.id, None)
            self._waits_since.pop(task.id, None)
            if task.state is State.SCHEDULED:
                self._waits_since[task.id] = self._clock()
            if task.state is State.QUEUED:
                self._queued_at[task.id] = self._clock()
            if (
                task.state in (State.QUEUED, State.SCHEDULED) and task.set_aside is None
            ):  # or what is due next has come nearer
                self._wakeup.set()
            if task.limit_key != limits.UNLIMITED and task.state is not State.RUNNING:  # others may have waited for it
                self._wakeup.set()
            if task.state.finished:
                waiting = (behind for behind in self._behind(task) if behind.state is State.WAITING)
                changed += [lifecycle.follow(behind, task, self._clock()) for behind in waiting]

    def _claimable(self) -> list[tuple[Route, datetime]]:
        """What waits for nothing but a worker, and since when."""
        with self._lock:
            now = self._clock()
            coming = {task.id: task.run_at for task in self._tasks.values() if task.state is State.SCHEDULED}
            due = {id: run_at for id, run_at in coming.items() if run_at and run_at <= now}
            found = [(self._tasks[id], since) for id, since in (self._queued_at | due).items()]
            found = [(task, since) for task, since in found if task.set_aside is None]
            return [(Route(task.name, task.queue), since) for task, since in found]

    def _revive_behind(self, task: Task) -> None:
        revived = [task]
        for task in revived:
            for behind in filter(self._is_free, filter(lifecycle.cancelled_for_another, self._behind(task))):
                self._put(lifecycle.revive(behind))
                revived.append(behind)

    def _behind(self, task: Task) -> list[Task]:
        return [self._tasks[id] for id in self._followers.get(task.id, ()) if id in self._tasks]

    def _resolved(self, id: str) -> str:
        return self._aliases.get(id, id)

    def _is_free(self, task: Task) -> bool:
        """Whether a finished task may come back: no other one has its unique key now."""
        return task.unique_key is None or not unfinished(self._tasks.values(), task.unique_key)

    def _candidates(self, claim: Claim, now: datetime) -> list[Task]:
        """What the worker could take, best first; due tasks are queued on the way."""
        for task in list(self._tasks.values()):
            if task.state is State.SCHEDULED and lifecycle.due(task, now).state is State.QUEUED:
                self._put(lifecycle.due(task, now))
                self._queued_at[task.id] = task.run_at or now
        queued = (task for task in self._tasks.values() if task.state is State.QUEUED and task.set_aside is None)
        queued = (task for task in queued if claim.serves(task))
        return sorted((task for task in queued if not self._paused.stops(task)), key=lambda task: -task.priority)

    def _anything_for(self, claim: Claim, now: datetime) -> bool:
        """Whether something without limits is there for the worker, which comes before what is stored now."""
        return any(task.name not in claim.limits for task in self._candidates(claim, now))

    def _could_lease(self, claim: Claim, new: NewTask, stored: Task) -> bool:
        return lifecycle.could_start(new, stored) and claim.could_lease(new) and not self._paused.stops(new)

    def _expire(self, now: datetime) -> None:
        for id in list(self._tasks):  # as stored: a task before those behind it
            if lifecycle.overdue(self._tasks[id], now):
                self._put(lifecycle.expire(self._tasks[id], now))

    def _bring_back(self, ids: Collection[str]) -> None:
        for task in [self._tasks[id] for id in ids if id in self._tasks]:
            if task.set_aside is not None:
                self._put(lifecycle.bring_back(task))

    def _rooms(self, claim: Claim, candidates: Sequence[Task], now: datetime) -> dict[Group, Room]:
        """What the limits leave to the tasks that could be taken."""
        groups = {_group(task, claim) for task in candidates if task.name in claim.limits}
        running = Counter(_group(task, claim) for task in self._tasks.values() if task.state is State.RUNNING)
        by_group = limits.by_group(claim.limits)
        rooms = {}
        for group in groups:
            starts = [start.at for start in self._starts.get(group, ())]
            rooms[group] = limits.room(by_group[group[0]], Used(running[group], starts), now)
        return rooms

    def _note_starts(self, claim: Claim, taken: Sequence[Task], now: datetime) -> None:
        for task in taken:
            limit = claim.limits.get(task.name)
            if limit and limit.rate:
                self._starts.setdefault(_group(task, claim), []).append(Start(now, now + limit.rate.per))


class Start(NamedTuple):
    """That a task of a function with a rate was started, and until when that counts."""

    at: datetime
    until: datetime


def _group(task: Task, claim: Claim) -> Group:
    return limits.group_of(task.name, task.limit_key, claim.limits)


def _matches(task: Task, query: Query) -> bool:
    return (
        (query.states is None or task.state in query.states)
        and (query.names is None or task.name in query.names)
        and (query.queues is None or task.queue in query.queues)
        and (query.idempotency_keys is None or task.idempotency_key in query.idempotency_keys)
        and (task.set_aside is not None or not query.set_aside)
    )


def _listed(task: Task) -> Task:
    return replace(task, failures=tuple(replace(failure, traceback="") for failure in task.failures))
