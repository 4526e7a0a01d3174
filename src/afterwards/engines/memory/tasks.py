"""The tasks in memory, with an index for each way in which they are looked up."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from heapq import heappop, heappush, merge
from itertools import dropwhile, islice
from typing import NamedTuple

from afterwards.core import lifecycle
from afterwards.core.claim import Claim, Paused
from afterwards.core.search import contains
from afterwards.core.storing import Key, KeyKind, keys_of
from afterwards.core.task import Lease, State, Task
from afterwards.engine import Query

LAST = datetime.max.replace(tzinfo=UTC)


class Lane(NamedTuple):
    """Queued tasks that are claimed one after the other."""

    queue: str
    name: str
    limit_key: str


class Place(NamedTuple):
    """The place of a queued task in the order of a claim."""

    rank: int  # minus its priority
    number: int  # in the order stored
    id: str


class Timed(NamedTuple):
    """The time of a change of a task, unless the task has changed since."""

    at: datetime
    number: int
    id: str


class Tasks:
    """Tasks by id, in the order stored."""

    def __init__(self) -> None:
        self.by_id: dict[str, Task] = {}
        self.queued_since: dict[str, datetime] = {}
        self.waits_since: dict[str, datetime] = {}  # of tasks that wait for no instant that the caller chose
        self.counts: Counter[tuple[str, State]] = Counter()
        self._numbers: dict[str, int] = {}
        self._next_number = 0
        self._by_key: dict[Key, str] = {}
        self._behind: dict[str, list[str]] = {}
        self._running: dict[str, None] = {}
        self._lanes: dict[Lane, list[Place]] = {}
        self._aside: set[str] = set()
        self._due: list[Timed] = []
        self._expiring: list[Timed] = []
        self._over: list[Timed] = []

    def put(self, task: Task, now: datetime) -> None:
        """Store a task with its new values."""
        before = self.by_id.get(task.id)
        if before is None:
            self._add(task)
        else:
            self._leave(before)
        self.by_id[task.id] = task
        self._enter(task, now)

    def note(self, task: Task) -> None:
        """Store a task of which only the history is new: it stays where it is, since the same time."""
        self.by_id[task.id] = task

    def put_first(self, tasks: Sequence[tuple[Task, datetime | None]], now: datetime) -> None:
        """Store new tasks, newest first, before all others. Each has the instant that its record does not show."""
        self._put_below(min(self._numbers.values(), default=self._next_number), tasks, now)

    def put_last(self, tasks: Sequence[tuple[Task, datetime | None]], now: datetime) -> None:
        """Store new tasks, newest first, behind all others, as ``put_first``."""
        self._next_number += len(tasks)
        self._put_below(self._next_number, tasks, now)

    def _put_below(self, first: int, tasks: Sequence[tuple[Task, datetime | None]], now: datetime) -> None:
        for number, (task, since) in enumerate(tasks, 1):
            if task.after is not None:
                self._behind.setdefault(task.after, []).append(task.id)
            self._numbers[task.id] = first - number
            self.by_id[task.id] = task
            self._enter(task, now)
            self._set_since(task, since)
        self.by_id = {id: self.by_id[id] for id in sorted(self.by_id, key=self._numbers.__getitem__)}

    def delete(self, id: str) -> None:
        task = self.by_id[id]
        self._leave(task)
        for key in keys_of(task):
            if self._by_key.get(key) == id:
                del self._by_key[key]
        del self.by_id[id], self._numbers[id]
        self._behind.pop(id, None)

    def in_order(self, ids: Iterable[str]) -> list[Task]:
        """Return the tasks that exist, each once, in the order stored."""
        return [self.by_id[id] for id in sorted({*ids} & self.by_id.keys(), key=self._numbers.__getitem__)]

    def with_key(self, key: Key) -> Task | None:
        """Return the task that has a key. A unique key finds only an unfinished task."""
        return self.by_id.get(self._by_key.get(key, ""))

    def behind(self, ids: Iterable[str], wanted: Callable[[Task], bool]) -> list[Task]:
        """Return the wanted tasks behind these, and those behind them in turn."""
        found: dict[str, Task] = {}
        before = [*ids]
        for id in before:
            for task in [self.by_id[one] for one in self._behind.get(id, ()) if one in self.by_id]:
                if wanted(task) and task.id not in found:
                    found[task.id] = task
                    before.append(task.id)
        return [*found.values()]

    @property
    def running(self) -> list[Task]:
        return [self.by_id[id] for id in self._running]

    @property
    def queued(self) -> Iterator[Task]:
        """Yield the queued tasks, without those that are set aside."""
        return (self.by_id[place.id] for lane in self._lanes.values() for place in lane)

    def find(self, query: Query) -> list[Task]:
        """Return the tasks of a query, the newest first, without the tracebacks of their failures."""
        return [_listed(task) for task in self._matching(query)]

    def count(self, query: Query) -> int:
        """Return the number of tasks of a query, up to its limit."""
        return sum(1 for _ in self._matching(query))

    def _matching(self, query: Query) -> Iterator[Task]:
        newest: Iterable[Task] = reversed(self.by_id.values())
        if query.before is not None:
            newest = islice(dropwhile(lambda task: task.id != query.before, newest), 1, None)
        return islice((task for task in newest if _matches(task, query)), query.limit)

    def claimable(self, now: datetime) -> list[tuple[Task, datetime]]:
        """Return tasks that wait only for a worker, and since when. A due task need not be queued yet."""
        due = {one.id: one.at for one in self._due if one.at <= now and self._is_due(one)}
        queued = [(task, self.queued_since[task.id]) for task in self.queued]
        return queued + [(self.by_id[id], at) for id, at in due.items()]

    @property
    def next_due(self) -> datetime | None:
        """Return when the first of the scheduled tasks is due."""
        while self._due and not self._is_due(self._due[0]):
            heappop(self._due)
        return self._due[0].at if self._due else None

    def due(self, now: datetime) -> list[Task]:
        """Remove and return the scheduled tasks whose time has come."""
        return [self.by_id[one.id] for one in _until(self._due, now) if self._is_due(one)]

    def overdue(self, now: datetime) -> list[Task]:
        """Remove and return the tasks that may not start any more, in the order stored."""
        found = self.in_order([one.id for one in _until(self._expiring, now)])
        return [task for task in found if lifecycle.overdue(task, now)]

    def over(self, now: datetime, limit: int) -> list[str]:
        """Remove and return the finished tasks whose retention is over."""
        found: list[str] = []
        while len(found) < limit and self._over and self._over[0].at <= now:
            one = heappop(self._over)
            task = self.by_id.get(one.id)
            if task and task.finished_at and _end_of(task, task.finished_at) == one.at and one.id not in found:
                found.append(one.id)
        return found

    def waiting_in(self, queue: str) -> int:
        """Return how many tasks wait in a queue, without those that are set aside."""
        pending = sum(self.counts[queue, state] for state in (State.WAITING, State.SCHEDULED, State.QUEUED))
        return pending - sum(self.by_id[id].queue == queue for id in self._aside)

    def lanes(self, claim: Claim, paused: Paused) -> list[Lane]:
        """Return the lanes from which the worker may take tasks now."""
        return [
            lane
            for lane, places in self._lanes.items()
            if lane.name in claim.names
            and (claim.queues is None or lane.queue in claim.queues)
            and not (lane.queue in paused.queues or lane.name in paused.names)
        ]

    def first(self, lanes: Iterable[Lane], claim: Claim) -> Iterator[Task]:
        """Yield the tasks of several lanes in the order of a claim, if it names certain tasks only these."""
        places: Iterable[Place] = merge(*(self._lanes[lane] for lane in lanes))
        tasks = (self.by_id[place.id] for place in places if claim.ids is None or place.id in claim.ids)
        starts = claim.starts
        return (task for task in tasks if starts is None or Lease(task.id, task.attempt + 1) in starts)

    def _set_since(self, task: Task, since: datetime | None) -> None:
        if task.state in (State.SCHEDULED, State.WAITING):
            self.waits_since.pop(task.id, None)
            if since:
                self.waits_since[task.id] = since
        elif task.state is State.QUEUED and since:
            self.queued_since[task.id] = since

    def _is_due(self, one: Timed) -> bool:
        task = self.by_id.get(one.id)
        return task is not None and task.state is State.SCHEDULED and task.run_at == one.at

    def _add(self, task: Task) -> None:
        self._numbers[task.id] = self._next_number
        self._next_number += 1
        if task.after is not None:
            self._behind.setdefault(task.after, []).append(task.id)

    def _enter(self, task: Task, now: datetime) -> None:
        number = self._numbers[task.id]
        self.counts[task.queue, task.state] += 1
        for key in keys_of(task):
            if not (task.state.finished and key.kind is KeyKind.UNIQUE):
                self._by_key[key] = task.id
        if task.set_aside is not None:
            self._aside.add(task.id)
        if task.expires_at is not None and task.state.pending:
            heappush(self._expiring, Timed(task.expires_at, number, task.id))
        match task.state:
            case State.QUEUED:
                self.queued_since[task.id] = now
                if task.set_aside is None:
                    insort(self._lanes.setdefault(_lane(task), []), Place(-task.priority, number, task.id))
            case State.SCHEDULED | State.WAITING if task.run_at:
                self.waits_since[task.id] = now
                heappush(self._due, Timed(task.run_at, number, task.id))  # that of a waiting task is passed over
            case State.RUNNING:
                self._running[task.id] = None
            case _:
                if task.finished_at and (end := _end_of(task, task.finished_at)):
                    heappush(self._over, Timed(end, number, task.id))

    def _leave(self, task: Task) -> None:
        self.counts[task.queue, task.state] -= 1
        self._aside.discard(task.id)
        self._running.pop(task.id, None)
        self.queued_since.pop(task.id, None)
        self.waits_since.pop(task.id, None)
        for key in keys_of(task):
            if key.kind is KeyKind.UNIQUE and self._by_key.get(key) == task.id:
                del self._by_key[key]
        if task.state is State.QUEUED and task.set_aside is None:
            place = Place(-task.priority, self._numbers[task.id], task.id)
            lane = self._lanes[_lane(task)]
            del lane[bisect_left(lane, place)]
            if not lane:
                del self._lanes[_lane(task)]


def _lane(task: Task) -> Lane:
    return Lane(task.queue, task.name, task.limit_key)


def _until(timed: list[Timed], now: datetime) -> Iterator[Timed]:
    """Remove and yield the entries whose time has come."""
    while timed and timed[0].at <= now:
        yield heappop(timed)


def _end_of(task: Task, finished_at: datetime) -> datetime | None:
    """Return until when the record is kept; None is for ever."""
    return None if task.retention > LAST - finished_at else finished_at + task.retention


def _matches(task: Task, query: Query) -> bool:
    return (
        (query.states is None or task.state in query.states)
        and (query.names is None or task.name in query.names)
        and (query.queues is None or task.queue in query.queues)
        and (query.idempotency_keys is None or task.idempotency_key in query.idempotency_keys)
        and (query.text is None or contains(task, query.text))
        and (query.since is None or (task.finished_at or task.created_at) >= query.since)
        and (query.behind is None or task.after == query.behind)
        and (task.set_aside is not None or not query.set_aside)
    )


def _listed(task: Task) -> Task:
    return replace(task, failures=tuple(replace(failure, traceback="") for failure in task.failures), logs=())
