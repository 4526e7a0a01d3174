"""The engine for tests, and the reference for other engines: dictionaries, and the rules of ``core``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import TracebackType
from typing import Self

from afterwards.core import lifecycle, limits, storing, succession, tallies
from afterwards.core.claim import Claim
from afterwards.core.clock_correction import corrected, put_back
from afterwards.core.lifecycle import Start
from afterwards.core.limits import Candidate, Group, Room
from afterwards.core.routing import Backlog, Route, Unroutable, unroutable, unserved
from afterwards.core.settling import Settled
from afterwards.core.storing import Loaded, Stored
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Dispatched, Fire, Heartbeat, Held, Transaction
from afterwards.engines.memory.controls import Controls
from afterwards.engines.memory.moving import KeptMoves
from afterwards.engines.memory.starts import group_of


class MemoryEngine(Controls, KeptMoves):
    """Tasks in this process. They end with it."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(clock=clock)
        self._room_at: datetime | None = None  # when a used-up rate lets another task start

    @property
    def tasks(self) -> list[Task]:
        """Return all tasks, in the order stored."""
        with self._lock:
            return list(self._tasks.by_id.values())

    # The methods of ``Sender``.

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        with self._lock:
            return self._store(tasks, claim)

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        with self._lock:
            self._planned(tasks, None, self._clock())

    async def publish(self, starts: Sequence[tuple[Lease, Start]]) -> None:
        with self._lock:
            for lease, start in starts:
                task = self._tasks.by_id.get(lease.task_id)
                if task and task.attempt == lease.attempt and task.state is State.SCHEDULED:
                    now, relative = self._clock(), lease.task_id in self._tasks.waits_since
                    self._put([lifecycle.publish(task, now, start)], now)
                    if not relative:  # held until an instant that the caller chose
                        self._tasks.waits_since.pop(lease.task_id, None)

    async def get(self, ids: Sequence[str]) -> list[Task]:
        with self._lock:
            return self._get(ids)

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        with self._lock:
            now, named = self._clock(), self._get(ids)
            waiting = self._tasks.behind((task.id for task in named), _waits)
            self._put(succession.cancel_all(named, waiting, reason, now), now)
            return self._get(ids)

    # The methods of ``Leasing``.

    async def claim(self, claim: Claim) -> list[Task]:
        self._wakeup.clear()
        with self._lock:
            now = self._clock()
            self._bring_back(self._get([*(claim.ids or ())]), now)
            self._expire(now)
            self._promote(now)
            candidates, rooms = self._candidates(claim, now)
            chosen = [*limits.admit(candidates, rooms, limit=claim.limit, suspects=claim.suspects)]
            taken = [lifecycle.claim(task, claim.worker, claim.lease, now) for task in chosen]
            self._put(taken, now)
            self._starts.add(taken, claim, now)
            self._dispatches.arrived(claim.starts or ())
            left = self._starts.rooms(rooms, self._tasks.running, claim, now)
            self._room_at = limits.next_room(left.values())
            return [replace(task, failures=(), logs=()) for task in taken]

    async def dispatch(self, ahead: Claim, *, again: timedelta) -> Dispatched:
        self._wakeup.clear()
        with self._lock:
            now = self._clock()
            self._expire(now)
            self._promote(now)
            candidates, rooms = self._candidates(ahead, now)
            self._room_at = limits.next_room(rooms.values())
            return self._dispatches.next(candidates, rooms, limit=ahead.limit, again=again, now=now)

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        held = []
        with self._lock:
            now = self._clock()
            for beat in beats:
                task = self._tasks.by_id.get(beat.lease.task_id)
                if task and task.state is State.RUNNING and task.attempt == beat.lease.attempt:
                    progress = task.progress if beat.progress is None else beat.progress
                    self._put([replace(task, lease_until=now + lease, progress=progress)], now)
                    held.append(Held(beat.lease, task.cancel_requested))
        return held

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        with self._lock:
            now = self._clock()
            finished = succession.finish_all(self._tasks.by_id, settled, now)
            ended = {task.id: task for task in finished.changed if task.state.finished}
            waiting = self._tasks.behind(ended, _waits)
            self._put([*finished.changed, *succession.follow_all(ended, waiting, now)], now)
            self._store([one.then for one in finished.accepted if one.then])
            refused = [one for one in settled if one.lease in {*finished.refused}]
            for late in succession.late_all(self._tasks.by_id, refused, now):
                self._tasks.note(late)
            self._tallies.add(tallies.ends_of(finished.accepted), now)
            return [*finished.refused]

    async def expired(self, limit: int) -> list[Task]:
        with self._lock:
            now = self._clock()
            lost = (task for task in self._tasks.running if task.lease_until and task.lease_until <= now)
            return [replace(task, failures=(), logs=()) for task in islice(lost, limit)]

    async def put_right(self, lease: timedelta) -> bool:
        with self._lock:
            now, any_wrong = self._clock(), False
            for task in self.tasks:
                waits_since = self._tasks.waits_since.get(task.id)
                queued_since = self._tasks.queued_since.get(task.id)
                right = lifecycle.put_right(task, waits_since, now, lease)
                if right != task or (queued_since and put_back(queued_since, now)):
                    any_wrong = True
                    self._put([right], now)
                if waits_since:
                    self._tasks.waits_since[task.id] = corrected(waits_since, now)
                if queued_since:
                    self._tasks.queued_since[task.id] = corrected(queued_since, now)
            self._put_workers_right(now)
            any_wrong = self._tallies.put_right(now) or any_wrong
            any_wrong = self._put_files_right(now) or any_wrong
            return self._put_schedules_right(now) or any_wrong

    async def wait(self, timeout: timedelta) -> None:
        with self._lock:
            coming = [at for at in (self._tasks.next_due, self._room_at) if at]
        until = min(coming) - self._clock() if coming else timeout
        await self._wakeup.wait(max(timedelta(), min(timeout, until)))

    # The methods of ``Schedules``, ``Files`` and ``Workers``; more are in the base classes.

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        with self._lock:
            return self._store(self._advanced(fires))

    async def delete_files(self, tasks: Sequence[str]) -> None:
        with self._lock:
            self._delete_files(frozenset(tasks), self._tasks.by_id)

    async def unroutable(self, waited: timedelta) -> list[Unroutable]:
        workers = await self.workers(waited)
        with self._lock:
            now = self._clock()
            found: dict[Route, list[datetime]] = {}
            for task, since in self._tasks.claimable(now):
                if since <= now - waited and not self._paused.stops(task):
                    found.setdefault(Route(task.name, task.queue), []).append(since)
        reasons = unserved(found, workers)
        backlog = [Backlog(route=route, count=len(found[route]), since=min(found[route])) for route in reasons]
        return unroutable(backlog, reasons)

    def join(self, transaction: Transaction) -> None:
        """Return None: no application has rows in the same store."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the tasks: the same engine may be opened again."""

    def _store(self, tasks: Sequence[NewTask], claim: Claim | None = None) -> list[Task]:
        now = self._clock()
        if claim and self._anything_for(claim, now):
            claim = None  # older tasks come first
        stored = self._planned(tasks, claim, now)
        self._aliases |= stored.aliases
        self._put(stored.made, now)
        made = {task.id for task in stored.made}
        for new in tasks:
            if new.run_at and new.id in made:  # scheduled for an instant that the caller chose
                self._tasks.waits_since.pop(new.id, None)
        return [replace(task, logs=()) if task.logs else task for task in stored.answers]  # as other engines

    def _planned(self, tasks: Sequence[NewTask], claim: Claim | None, now: datetime) -> Stored:
        """Return the tasks that an enqueue stores, and its answers. Raises QueueFull."""
        by_id = {id: task for id in storing.needed_ids(tasks) for task in self._get([id])}
        keys = {key for new in tasks for key in storing.keys_of(new)}
        by_key = {key: task for key in keys if (task := self._tasks.with_key(key))}
        stored = storing.store_all(tasks, Loaded(by_id=by_id, by_key=by_key), now, claim=claim, paused=self._paused)
        waiting = {queue: self._tasks.waiting_in(queue) for queue in storing.limited_queues(tasks)}
        if full := storing.full_queue(tasks, stored.made, waiting):
            raise full
        return stored

    def _anything_for(self, claim: Claim, now: datetime) -> bool:
        """Return True if a task without limits waits for the worker: it comes before new tasks."""
        self._promote(now)
        lanes = (lane for lane in self._tasks.lanes(claim, self._paused) if lane.name not in claim.limits)
        return any(True for _ in self._tasks.first(lanes, claim))

    def _candidates(self, claim: Claim, now: datetime) -> tuple[Iterator[Candidate[Task]], dict[Group, Room]]:
        """Return the tasks that the worker may take, in the order of a claim, and the room that their limits leave."""
        lanes = self._tasks.lanes(claim, self._paused)
        groups = {limits.group_of(lane.name, lane.limit_key, claim.limits) for lane in lanes}
        rooms = self._starts.rooms(groups, self._tasks.running, claim, now)
        open_lanes = (
            lane
            for lane in lanes
            if (room := rooms.get(limits.group_of(lane.name, lane.limit_key, claim.limits))) is None or room.count
        )
        tasks = self._tasks.first(open_lanes, claim)
        return ((task, task.suspect, group_of(task, claim)) for task in tasks), rooms

    def _promote(self, now: datetime) -> None:
        for task in self._tasks.due(now):
            self._put([lifecycle.due(task, now)], now)
            self._tasks.queued_since[task.id] = task.run_at or now

    def _expire(self, now: datetime) -> None:
        overdue = self._tasks.overdue(now)
        waiting = self._tasks.behind((task.id for task in overdue), _waits)
        self._put(succession.expire_all(overdue, waiting, now), now)

    def _bring_back(self, tasks: Sequence[Task], now: datetime) -> None:
        before = {task.after: one for task in tasks if task.after for one in self._get([task.after])}
        self._put(succession.bring_back_all(tasks, before, now), now)


def _waits(task: Task) -> bool:
    return task.state is State.WAITING
