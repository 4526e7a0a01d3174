"""The engine for tests, and the reference for the others: a dictionary."""

import threading
from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import dropwhile, islice
from types import TracebackType
from typing import NamedTuple, Self

from afterwards.core import lifecycle, limits, schedule
from afterwards.core.errors import QueueFull
from afterwards.core.files import UNCLAIMED
from afterwards.core.lifecycle import Settled
from afterwards.core.limits import Group, Room, Used
from afterwards.core.routing import FORGOTTEN_AFTER, Backlog, LiveWorker, Route
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Chunk, Claim, Fire, Heartbeat, Held, Paused, Query, Stats, Transaction
from afterwards.engines.wakeup import Wakeup


@dataclass(slots=True, kw_only=True)
class File:
    """An uploaded file."""

    task: str
    until: datetime  # when it is deleted, unless its task is stored
    chunks: dict[int, bytes] = field(default_factory=dict)


class MemoryEngine:
    """Tasks in this process; gone with it."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._tasks: dict[str, Task] = {}  # in the order stored
        self._aliases: dict[str, str] = {}  # ids of calls that a uniqueness rule answered
        self._starts: dict[Group, list[Start]] = {}  # of functions with a rate, the oldest first
        self._paused = Paused()
        self._room_at: datetime | None = None  # when a rate that was used up lets another one start
        self._files: dict[str, File] = {}
        self._schedules: dict[str, StoredSchedule] = {}
        self._queued_at: dict[str, datetime] = {}  # of the queued tasks
        self._workers: dict[str, LiveWorker] = {}
        self._left: set[str] = set()  # of the workers
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
            slots = claim.limit if claim and not self._anything_for(claim, now) else 0
            storing = Storing(self._tasks, self._aliases)  # kept apart: all are stored, or none
            for asked in tasks:
                new = storing.wanted(asked)
                if new is None:
                    continue
                task = lifecycle.store(new, storing.tasks.get(new.after or ""), now)
                if claim and slots and self._could_lease(claim, new, task):
                    task = lifecycle.claim(task, claim.worker, claim.lease, now)
                    slots -= 1
                storing.tasks[new.id] = task
            _refuse_full(tasks, storing)
            self._aliases.update(storing.aliases.maps[0])
            for task in storing.tasks.maps[0].values():
                self._put(task)
            return [self._tasks[self._resolved(new.id)] for new in tasks]

    def join(self, transaction: Transaction) -> None:
        """Tasks in memory lie beside nobody's rows."""

    async def publish(self, leases: Sequence[Lease], *, held: bool = False, run_at: datetime | None = None) -> None:
        change = lifecycle.hold if held else partial(lifecycle.publish, run_at=run_at)
        with self._lock:
            for lease in leases:
                task = self._tasks.get(lease.task_id)
                if task and task.attempt == lease.attempt and task.state is State.SCHEDULED:
                    self._put(change(task, self._clock()))

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
            self._expire(now)
            candidates = self._candidates(claim, now)
            rooms = self._rooms(claim, candidates, now)
            chosen = limits.admit(
                [(task, task.suspect, _group(task)) for task in candidates],
                rooms,
                limit=claim.limit,
                suspects=claim.suspects,
            )
            taken = [lifecycle.claim(task, claim.worker, claim.lease, now) for task in chosen]
            for task in taken:
                self._put(task)
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
            self._aliases = {id: task for id, task in self._aliases.items() if task in self._tasks}
            self._starts = {
                group: left for group, starts in self._starts.items() if (left := [s for s in starts if s.until > now])
            }
            self._prune_files(frozenset(doomed), now)
            self._prune_workers(now)
            return len(doomed)

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        with self._lock:
            for chunk in chunks:
                new = File(task=chunk.task, until=self._clock() + UNCLAIMED)
                self._files.setdefault(chunk.file, new).chunks[chunk.number] = chunk.content

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        with self._lock:
            chunks = self._files[file].chunks if file in self._files else {}
            return [content for number, content in sorted(chunks.items()) if start <= number < start + limit]

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

    async def sign_in(self, workers: Sequence[LiveWorker]) -> None:
        with self._lock:
            for worker in workers:
                self._workers[worker.id] = replace(worker, seen_at=self._clock())
                self._left.discard(worker.id)

    async def sign_out(self, ids: Collection[str]) -> None:
        with self._lock:
            for id in self._workers.keys() & set(ids):
                self._workers[id] = replace(self._workers[id], seen_at=self._clock())
                self._left.add(id)

    async def live_workers(self, since: timedelta) -> list[LiveWorker]:
        return [worker for worker in await self.seen_workers(since) if worker.id not in self._left]

    async def seen_workers(self, since: timedelta) -> list[LiveWorker]:
        with self._lock:
            earliest = self._clock() - since
            seen = [worker for worker in self._workers.values() if worker.seen_at and worker.seen_at >= earliest]
            return sorted(seen, key=lambda worker: (worker.started_at, worker.id))

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

    def _change_schedules(self, names: Collection[str], change: Callable[[StoredSchedule], StoredSchedule]) -> None:
        with self._lock:
            for stored in [self._schedules[name] for name in names if name in self._schedules]:
                self._schedules[stored.name] = change(stored)

    def _put(self, task: Task) -> None:
        """Store a task; when that finishes it, decide on those behind it."""
        changed = [task]
        for task in changed:
            self._tasks[task.id] = task
            self._queued_at.pop(task.id, None)
            if task.state is State.QUEUED:
                self._queued_at[task.id] = self._clock()
            if task.state in (State.QUEUED, State.SCHEDULED):  # or what is due next has come nearer
                self._wakeup.set()
            if task.limit_key != limits.UNLIMITED and task.state is not State.RUNNING:  # others may have waited for it
                self._wakeup.set()
            if task.state.finished:
                waiting = (behind for behind in self._behind(task) if behind.state is State.WAITING)
                changed += [lifecycle.follow(behind, task, self._clock()) for behind in waiting]

    def _prune_files(self, pruned: Container[str], now: datetime) -> None:
        for id, file in list(self._files.items()):
            if file.task in pruned or (file.task not in self._tasks and file.until <= now):
                del self._files[id]

    def _prune_workers(self, now: datetime) -> None:
        for id, worker in list(self._workers.items()):
            if worker.seen_at and worker.seen_at <= now - FORGOTTEN_AFTER:
                del self._workers[id]
                self._left.discard(id)

    def _claimable(self) -> list[tuple[Route, datetime]]:
        """What waits for nothing but a worker, and since when."""
        with self._lock:
            now = self._clock()
            coming = {task.id: task.run_at for task in self._tasks.values() if task.state is State.SCHEDULED}
            due = {id: run_at for id, run_at in coming.items() if run_at and run_at <= now}
            found = [(self._tasks[id], since) for id, since in (self._queued_at | due).items()]
            return [(Route(task.name, task.queue), since) for task, since in found]

    def _revive_behind(self, task: Task) -> None:
        revived = [task]
        for task in revived:
            for behind in filter(self._is_free, filter(lifecycle.cancelled_for_another, self._behind(task))):
                self._put(lifecycle.revive(behind))
                revived.append(behind)

    def _behind(self, task: Task) -> list[Task]:
        return [other for other in self._tasks.values() if other.after == task.id]

    def _resolved(self, id: str) -> str:
        return self._aliases.get(id, id)

    def _is_free(self, task: Task) -> bool:
        """Whether a finished task may come back: no other one has its unique key now."""
        return task.unique_key is None or not _unfinished(self._tasks.values(), task.unique_key)

    def _candidates(self, claim: Claim, now: datetime) -> list[Task]:
        """What the worker could take, best first; due tasks are queued on the way."""
        for task in list(self._tasks.values()):
            if task.state is State.SCHEDULED and lifecycle.due(task, now).state is State.QUEUED:
                self._put(lifecycle.due(task, now))
                self._queued_at[task.id] = task.run_at or now
        queued = (task for task in self._tasks.values() if task.state is State.QUEUED and claim.serves(task))
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

    def _rooms(self, claim: Claim, candidates: Sequence[Task], now: datetime) -> dict[Group, Room]:
        """What the limits leave to the tasks that could be taken."""
        groups = {_group(task) for task in candidates if task.name in claim.limits}
        running = Counter(_group(task) for task in self._tasks.values() if task.state is State.RUNNING)
        return {
            group: limits.room(
                claim.limits[group[0]], Used(running[group], [start.at for start in self._starts.get(group, ())]), now
            )
            for group in groups
        }

    def _note_starts(self, claim: Claim, taken: Sequence[Task], now: datetime) -> None:
        for task in taken:
            limit = claim.limits.get(task.name)
            if limit and limit.rate:
                self._starts.setdefault(_group(task), []).append(Start(now, now + limit.rate.per))


class Start(NamedTuple):
    """That a task of a function with a rate was started, and until when that counts."""

    at: datetime
    until: datetime


class Storing:
    """What one enqueue stores: looked at together with what is stored already."""

    def __init__(self, tasks: dict[str, Task], aliases: dict[str, str]) -> None:
        self.tasks = ChainMap[str, Task]({}, tasks)
        self.aliases = ChainMap[str, str]({}, aliases)
        self._after: dict[str, str | None] = {}  # what those came after that were answered

    def wanted(self, new: NewTask) -> NewTask | None:
        """The task to be stored, None if it is stored, or another one stands for it."""
        if self.aliases.get(new.id, new.id) in self.tasks:
            return None
        after = new.after
        while new.chained and after is not None and after in self._after:
            after = self._after[after]
        after = after and self.aliases.get(after, after)
        twin = self._twin(new)
        if twin:
            self.aliases[new.id] = twin.id
            self._after[new.id] = after
            return None
        return replace(new, after=after)

    def _twin(self, new: NewTask) -> Task | None:
        """The task that there shall be no other one like."""
        if new.idempotency_key is not None:
            for task in self.tasks.values():
                if task.idempotency_key == new.idempotency_key:
                    return task
        return next(iter(_unfinished(self.tasks.values(), new.unique_key)), None) if new.unique_key else None


def _refuse_full(tasks: Iterable[NewTask], storing: Storing) -> None:
    """Raise QueueFull if a queue would have more that waits than one of the tasks allows."""
    added, before = storing.tasks.maps[0], storing.tasks.maps[1]
    allowed = {new.queue: new.max_queued for new in tasks if new.max_queued is not None and new.id in added}
    for queue, most in allowed.items():
        waiting = sum(1 for task in before.values() if task.queue == queue and task.state.pending)
        if waiting + sum(1 for task in added.values() if task.queue == queue) > most:
            raise QueueFull(queue, most)


def _unfinished(tasks: Iterable[Task], unique_key: str) -> list[Task]:
    return [task for task in tasks if task.unique_key == unique_key and not task.state.finished]


def _group(task: Task) -> Group:
    return limits.group_of(task.name, task.limit_key)


def _matches(task: Task, query: Query) -> bool:
    return (
        (query.states is None or task.state in query.states)
        and (query.names is None or task.name in query.names)
        and (query.queues is None or task.queue in query.queues)
        and (query.idempotency_key is None or task.idempotency_key == query.idempotency_key)
    )
