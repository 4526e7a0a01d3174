"""Two engines, and the operations that are done to both."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from afterwards.core import lifecycle, settling
from afterwards.core.errors import QueueFull
from afterwards.core.limits import Group, group_of
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.routing import LiveWorker
from afterwards.core.settling import Outcome
from afterwards.core.tallies import KEPT, STEP
from afterwards.core.task import Lease, LogLine, NewTask, State, Task, task_id
from afterwards.engine import Claim, Engine, Fire, Heartbeat, Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.generated.asked import Asked
from afterwards.testing.conformance.generated.difference import difference
from afterwards.testing.conformance.generated.invariants import (
    LIMITS,
    SECOND,
    check_change,
    check_limits,
    check_record,
    check_uniqueness,
)

T = TypeVar("T")

LEASE = 30 * SECOND
NAMES = frozenset({"greet", "thank"})
FIRES = 10 * SECOND


@dataclass
class World:
    """Two engines, one clock, and the memory of senders and workers. Numbers count backwards from the latest."""

    engine: Engine
    reference: Engine
    clock: FakeClock
    ids: list[str] = field(default_factory=list)
    attempts: list[Task] = field(default_factory=list)  # as their workers took them, including those that are over
    expired: list[Task] = field(default_factory=list)  # as a reaper read them
    stored: dict[str, Task] = field(default_factory=dict)  # after the last step
    starts: dict[Group, list[datetime]] = field(default_factory=dict)
    fired: set[tuple[str, datetime]] = field(default_factory=set)

    async def enqueue(self, calls: list[Asked], slots: int) -> None:
        tasks = [self._new(asked) for asked in calls]
        claim = Claim(worker="sender", limit=slots, lease=LEASE, names=NAMES, limits=LIMITS) if slots else None
        stored = await self._both(lambda engine: _or_full(engine.enqueue(tasks, claim=claim)))
        self.attempts += [task for task in stored or [] if task.state is State.RUNNING]

    async def publish(self, numbers: list[int], attempt: int, start: int | timedelta | None) -> None:
        moved = {task.id: task.state for task in await self.engine.get(self._ids(numbers))}
        not_due = [
            task
            for task in self._tasks(numbers)
            if not (task.run_at and task.run_at <= self.clock()) and task.state is moved.get(task.id)
        ]
        until = self.clock() + timedelta(seconds=start) if isinstance(start, int) else start
        # Some start at once: tasks that are published together may have different times.
        starts = [(Lease(task.id, attempt), None if number % 2 else until) for number, task in enumerate(not_due)]
        await self._both(lambda engine: engine.publish(starts))

    async def claim(
        self,
        limit: int = 100,
        names: frozenset[str] = NAMES,
        queues: frozenset[str] | None = None,
        suspects: int = 1,
        numbers: list[int] | None = None,
        arrived: list[int] | None = None,
    ) -> None:
        claim = Claim(
            worker="worker",
            limit=limit,
            lease=LEASE,
            names=names,
            queues=queues,
            suspects=suspects,
            ids=None if numbers is None else frozenset(self._ids(numbers)),
            starts=None if arrived is None else frozenset(self._next_attempts(arrived)),
            limits=LIMITS,
        )
        taken = await self._both(lambda engine: engine.claim(claim))
        self.attempts += taken
        for task in taken:
            self.starts.setdefault(group_of(task.name, task.limit_key, LIMITS), []).append(self.clock())

    async def dispatch(self, limit: int, names: frozenset[str], queues: frozenset[str] | None) -> None:
        ahead = Claim(worker="dispatcher", limit=limit, lease=LEASE, names=names, queues=queues, limits=LIMITS)
        await self._both(lambda engine: engine.dispatch(ahead, again=20 * SECOND))

    async def pause(self, paused: Paused) -> None:
        await self._both(lambda engine: engine.pause(paused))

    async def resume(self, paused: Paused) -> None:
        await self._both(lambda engine: engine.resume(paused))

    async def heartbeat(self, numbers: list[int], progress: Progress | None) -> None:
        beats = [Heartbeat(task.lease, progress) for task in self._attempts(numbers)]
        await self._both(lambda engine: engine.heartbeat(beats, lease=LEASE))

    async def finish(self, numbers: list[int], outcome: Outcome, retries: int, lines: int) -> None:
        settled = [
            replace(
                settling.settle(task, outcome, Retry(retries), worker="worker", now=self.clock(), random=0.5),
                logs=self._logged(task, lines),
            )
            for task in self._attempts(numbers)
        ]

        async def refused(engine: Engine) -> list[Lease]:
            return sorted(await engine.finish(settled))

        await self._both(refused)

    async def look_for_expired(self) -> None:
        self.expired = await self._both(lambda engine: _in_any_order(engine.expired(limit=1000)))

    async def give_up_what_was_seen_expired(self) -> None:
        lost = settling.lose_all(self.expired, now=self.clock())
        await self._both(lambda engine: engine.finish(lost))

    async def workers_die(self) -> None:
        self.clock.advance(LEASE)
        await self.look_for_expired()
        await self.give_up_what_was_seen_expired()

    async def a_reaper_is_slow(self, numbers: list[int]) -> None:
        """Renew some leases between the reaper's query and its decision."""
        self.clock.advance(LEASE)
        await self.look_for_expired()
        await self.heartbeat(numbers, progress=None)
        await self.give_up_what_was_seen_expired()

    async def cancel(self, number: int) -> None:
        await self._both(lambda engine: engine.cancel(self._ids([number]), "not wanted"))

    async def requeue(self, numbers: list[int]) -> None:
        await self._both(lambda engine: _in_any_order(engine.requeue(self._ids(numbers))))

    async def start_now(self, numbers: list[int]) -> None:
        await self._both(lambda engine: _in_any_order(engine.start_now(self._ids(numbers))))

    async def delete(self, numbers: list[int]) -> None:
        async def deleted(engine: Engine) -> list[str]:
            return sorted(await engine.delete(self._ids(numbers)))

        await self._both(deleted)

    async def prune(self) -> None:
        await self._both(lambda engine: engine.prune(limit=1000))

    async def register_schedules(self, expressions: dict[str, str]) -> None:
        await self._both(lambda engine: engine.register_schedules(expressions))

    async def fire(self, calls: list[Asked], slots: list[int]) -> None:
        """Fire at multiples of a span, near the clock. Both engines get the same calls, so that none is doubled."""
        now = START + (self.clock() - START) // FIRES * FIRES
        fires = [
            Fire(call.name, now + slot * FIRES, replace(self._new(call), max_queued=None))
            for call, slot in zip(calls, slots, strict=False)
        ]
        stored = {task.id for task in await self._both(lambda engine: engine.fire(fires))}
        for fire in fires:
            if fire.task.id in stored:
                assert (fire.schedule, fire.at) not in self.fired
                self.fired.add((fire.schedule, fire.at))

    async def pause_schedules(self, names: frozenset[str]) -> None:
        await self.pause(Paused(schedules=names))

    async def resume_schedules(self, names: frozenset[str]) -> None:
        await self.resume(Paused(schedules=names))

    async def announce(self, names: frozenset[str], queues: frozenset[str] | None, has_left: bool) -> None:
        worker = LiveWorker(
            id="worker", host="here", pid="1", started_at=START, names=names, queues=queues, has_left=has_left
        )
        await self._both(lambda engine: engine.announce([worker]))

    async def move(self, limit: int) -> None:
        """Move all records of the engine to another one, and back. The engine in memory keeps its own."""
        other = MemoryEngine(clock=self.clock)
        for source, destination in ((self.engine, other), (other, self.engine)):
            done = None
            while done := await source.hand_over("there", limit=limit, done=done):
                await destination.take_over(done)

    async def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    async def find(
        self,
        states: frozenset[State] | None,
        names: frozenset[str] | None,
        queues: frozenset[str] | None,
        before: int | None,
        since: int | None,
        behind: int | None,
        text: str | None,
        limit: int,
    ) -> None:
        below = None if before is None else self._ids([before])[0]
        query = Query(
            states=states,
            names=names,
            queues=queues,
            text=text,
            since=None if since is None else self.clock() - since * SECOND,
            behind=None if behind is None else self._ids([behind])[0],
            before=below,
            limit=limit,
        )
        await self._both(lambda engine: engine.find(query))
        await self._both(lambda engine: engine.count(query))

    async def check(self, *, by_hand: bool) -> None:
        """Check that both engines hold the same, and that it is consistent."""
        stored = await self._both(lambda engine: engine.get(self.ids))
        await self._both(_counts)
        await self._both(lambda engine: engine.paused())
        await self._both(lambda engine: engine.register_schedules({}))
        await self._both(lambda engine: engine.workers(60 * SECOND))
        await self._both(lambda engine: engine.unroutable(10 * SECOND))
        await self._both(lambda engine: engine.tallies(KEPT, STEP))
        before, self.stored = self.stored, {task.id: task for task in stored}  # one task may stand for several ids
        check_limits(self.stored.values(), self.starts)
        check_uniqueness(self.stored.values())
        for task in stored:
            check_record(task, self.stored)
            if task.id in before:
                check_change(before[task.id], task, by_hand=by_hand)

    async def _both(self, call: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Do the same to both engines. Their answers must be equal."""
        expected, answer = await call(self.reference), await call(self.engine)
        if self._moved(answer) != self._moved(expected):
            raise AssertionError(difference(self._moved(answer), self._moved(expected)))
        return expected

    def _moved(self, answer: object) -> object:
        """Return an answer as if all due tasks were queued: each engine may choose when it queues them."""
        match answer:
            case Task():
                return lifecycle.due(answer, self.clock())
            case list():
                return [self._moved(item) for item in answer]
            case _:
                return answer

    def _new(self, asked: Asked) -> NewTask:
        after = None if asked.after is None or not self.ids else self._ids([asked.after])[0]
        self.ids.append(task_id(START, (2**79 - len(self.ids)).to_bytes(10)))  # they decrease: nothing to order by
        return asked.new(self.ids[-1], after)

    def _logged(self, task: Task, lines: int) -> tuple[LogLine, ...]:
        line = LogLine(attempt=task.attempt, at=self.clock(), level="INFO", logger="shop", message="a line")
        return (line,) * lines

    def _ids(self, numbers: Sequence[int]) -> list[str]:
        return _counted_back(self.ids, numbers) or [task_id(START, bytes(10))]

    def _tasks(self, numbers: Sequence[int]) -> list[Task]:
        return [self.stored[id] for id in self._ids(numbers) if id in self.stored]

    def _next_attempts(self, numbers: Sequence[int]) -> list[Lease]:
        return [Lease(task.id, task.attempt + 1) for task in self._tasks(numbers)]

    def _attempts(self, numbers: Sequence[int]) -> list[Task]:
        return _counted_back(self.attempts, numbers)


def _counted_back(items: Sequence[T], numbers: Sequence[int]) -> list[T]:
    """Return the items with these numbers, 0 being the latest; each once."""
    return [items[index] for index in {-1 - number % len(items): None for number in numbers}] if items else []


async def _or_full(answer: Awaitable[list[Task]]) -> list[Task] | None:
    """Return the answer, None if a queue was full."""
    try:
        return await answer
    except QueueFull:
        return None


async def _in_any_order(answer: Awaitable[list[Task]]) -> list[Task]:
    return sorted(await answer, key=lambda task: task.id)


async def _counts(engine: Engine) -> dict[tuple[str, State], int]:
    """Count the tasks by state. Scheduled and queued are one, because engines may choose when they move tasks."""
    counts: dict[tuple[str, State], int] = {}
    for (queue, state), count in (await engine.stats()).counts.items():
        key = queue, State.QUEUED if state is State.SCHEDULED else state
        counts[key] = counts.get(key, 0) + count
    return counts
