"""Moving between engines, in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from afterwards.core import moving, schedule, storing, succession
from afterwards.core.claim import NOTHING_PAUSED
from afterwards.core.moving import CHUNKS_AT_ONCE, Arrived, Batch, MovedChunk, MovedTask, PutBack
from afterwards.core.storing import Loaded
from afterwards.core.task import State, Task
from afterwards.engines.memory.files import NEVER, File, KeptFiles
from afterwards.engines.memory.kept_tasks import KeptTasks
from afterwards.engines.memory.schedules import KeptSchedules

Put = Callable[[Sequence[tuple[Task, datetime | None]], datetime], None]


class KeptMoves(KeptTasks, KeptSchedules, KeptFiles):
    """The batch that is on its way to another engine, and the ids of those that came from others."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self._outgoing: Batch | None = None
        self._taken_over: set[str] = set()

    async def hand_over(self, to: str, *, limit: int, done: Batch | None = None) -> Batch | None:
        with self._lock:
            if self._outgoing and done and done.id == self._outgoing.id:
                self._outgoing = None
            if self._outgoing is None:
                batch = self._settings_of(limit) or self._chunks_of_some() or self._newest(limit)
                self._outgoing = batch and replace(batch, id=str(uuid4()), to=to)
            return self._outgoing

    async def take_over(self, batch: Batch) -> Arrived:
        with self._lock:
            if batch.id in self._taken_over:
                return Arrived()
            self._taken_over.add(batch.id)
            return self._put_batch(batch, self._tasks.put_first)

    async def put_back(self) -> PutBack | None:
        with self._lock:
            batch, self._outgoing = self._outgoing, None
            return None if batch is None else PutBack(batch=batch, arrived=self._put_batch(batch, self._tasks.put_last))

    def _put_batch(self, batch: Batch, put: Put) -> Arrived:
        self._paused |= batch.paused
        for one in batch.schedules:
            self._schedules[one.name] = schedule.moved(self._schedules.get(one.name), one)
        self._starts.put(batch.starts)
        self._tallies.put(batch.tallies)
        for chunk in batch.chunks:
            file = File(task=chunk.task, until=chunk.until or NEVER)
            self._files.setdefault(chunk.file, file).chunks[chunk.number] = chunk.content
        return self._store_moved(batch.tasks, self._clock(), put)

    def _settings_of(self, limit: int) -> Batch | None:
        paused, self._paused = self._paused, NOTHING_PAUSED
        schedules = tuple(self._schedules.values())
        self._schedules = {}
        starts, tallies = self._starts.take(limit), self._tallies.take(limit)
        batch = Batch(id="", to="", paused=paused, schedules=schedules, starts=starts, tallies=tallies)
        return None if batch.is_empty else batch

    def _chunks_of_some(self) -> Batch | None:
        every = ((id, file, number) for id, file in self._files.items() for number in sorted(file.chunks))
        chunks = [
            MovedChunk(
                file=id,
                task=file.task,
                number=number,
                content=file.chunks[number],
                until=None if file.until == NEVER or file.task in self._tasks.by_id else file.until,
            )
            for (id, file, number), _ in zip(every, range(CHUNKS_AT_ONCE), strict=False)
        ]
        for chunk in chunks:
            del self._files[chunk.file].chunks[chunk.number]
        self._files = {id: file for id, file in self._files.items() if file.chunks}
        return Batch(id="", to="", chunks=tuple(chunks)) if chunks else None

    def _newest(self, limit: int) -> Batch | None:
        newest = [*reversed(self._tasks.by_id.values())][:limit]
        tasks = tuple(moving.within_bytes(map(self._moved, newest)))
        for one in tasks:
            self._tasks.delete(one.task.id)
            for alias in one.aliases:
                del self._aliases[alias]
        return Batch(id="", to="", tasks=tasks) if tasks else None

    def _moved(self, task: Task) -> MovedTask:
        since = self._tasks.queued_since.get(task.id) or self._tasks.waits_since.get(task.id)
        aliases = tuple(id for id, stands in self._aliases.items() if stands == task.id)
        return MovedTask(task=task, since=since, aliases=aliases)

    def _store_moved(self, tasks: Sequence[MovedTask], now: datetime, put: Put) -> Arrived:
        by_id = {
            id: self._tasks.by_id[stands]
            for id in moving.needed_ids(tasks)
            if (stands := self._aliases.get(id, id)) in self._tasks.by_id
        }
        keys = {key for one in tasks for key in storing.keys_of(one.task)}
        by_key = {key: task for key in keys if (task := self._tasks.with_key(key))}
        arrived = moving.arrive(tasks, Loaded(by_id=by_id, by_key=by_key), now)
        put([(one.task, one.since) for one in arrived.stored], now)
        aliases = {alias: one.task.id for one in tasks for alias in one.aliases}
        self._aliases = {id: stands for id, stands in aliases.items() if stands in self._tasks.by_id} | self._aliases
        ended = {one.task.id: one.task for one in arrived.stored if one.task.state.finished}
        waiting = self._tasks.behind(ended, lambda task: task.state is State.WAITING and task.set_aside is None)
        for task in succession.follow_all(ended, waiting, now):
            self._tasks.put(task, now)
        self._wakeup.set()
        return arrived
