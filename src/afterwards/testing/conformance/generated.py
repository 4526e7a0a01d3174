"""Compare an engine with the one in memory after the same operations.

Steps are drawn at random, from a seed. They name tasks and attempts by number among those that exist at that time, so
that late workers and repeated calls come up by themselves. A difference is shown as a short list of steps that leads to
it.
"""

import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, ClassVar, TypeVar

import pytest

from afterwards.core import lifecycle
from afterwards.core.errors import QueueFull
from afterwards.core.lifecycle import Cancelled, Outcome, Raised, Released, SetAside, Snoozed, Succeeded
from afterwards.core.limits import Group, Limit, Rate, group_of
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.routing import LiveWorker
from afterwards.core.task import FIRST_FAILURES, Failure, FailureKind, Lease, NewTask, State, Task, task_id
from afterwards.engine import Claim, Engine, Fire, Heartbeat, Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import START, FakeClock

T = TypeVar("T")
Draw = Callable[[Random], Any]

SECOND = timedelta(seconds=1)
LEASE = 30 * SECOND
NAMES = frozenset({"greet", "thank"})
LIMITS = {"thank": Limit(max_concurrency=2, rate=Rate(3, 30 * SECOND))}
PAUSED = (
    Paused(queues=frozenset({"mail"})),
    Paused(names=frozenset({"greet"})),
    Paused(names=frozenset({"thank"}), queues=frozenset({"default"})),
)
FIRES = 10 * SECOND
FAILURE = Failure(attempt=1, at=START, worker="w", kind=FailureKind.RAISED, type="ValueError", message="no")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of an enqueue. Its ``repr`` leaves out the defaults."""

    name: str = "greet"
    queue: str = "default"
    priority: int = 0
    retention: int = 1_000_000
    after: int | None = None  # 0: the call just before it
    held: bool = False
    wait: int = 0
    plain: bool = False
    chained: bool = False
    expires: int | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    limit_key: str = ""
    rerun_after_crash: bool = True
    max_queued: int | None = None

    def __repr__(self) -> str:
        given = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return f"Asked({', '.join(f'{name}={value!r}' for name, value in given.items())})"


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
    ) -> None:
        claim = Claim(
            worker="worker",
            limit=limit,
            lease=LEASE,
            names=names,
            queues=queues,
            suspects=suspects,
            ids=None if numbers is None else frozenset(self._ids(numbers)),
            limits=LIMITS,
        )
        taken = await self._both(lambda engine: engine.claim(claim))
        self.attempts += taken
        for task in taken:
            self.starts.setdefault(group_of(task.name, task.limit_key, LIMITS), []).append(self.clock())

    async def pause(self, paused: Paused) -> None:
        await self._both(lambda engine: engine.pause(paused))

    async def resume(self, paused: Paused) -> None:
        await self._both(lambda engine: engine.resume(paused))

    async def heartbeat(self, numbers: list[int], progress: Progress | None) -> None:
        beats = [Heartbeat(task.lease, progress) for task in self._attempts(numbers)]
        await self._both(lambda engine: engine.heartbeat(beats, lease=LEASE))

    async def finish(self, numbers: list[int], outcome: Outcome, retries: int) -> None:
        settled = [
            lifecycle.settle(task, outcome, Retry(retries), worker="worker", now=self.clock(), random=0.5)
            for task in self._attempts(numbers)
        ]
        await self._both(lambda engine: engine.finish(settled))

    async def look_for_expired(self) -> None:
        self.expired = await self._both(lambda engine: _in_any_order(engine.expired(limit=1000)))

    async def give_up_what_was_seen_expired(self) -> None:
        lost = lifecycle.lose_all(self.expired, now=self.clock())
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
        limit: int,
    ) -> None:
        below = None if before is None else self._ids([before])[0]
        query = Query(states=states, names=names, queues=queues, before=below, limit=limit)
        await self._both(lambda engine: engine.find(query))

    async def check(self, *, by_hand: bool) -> None:
        """Check that both engines hold the same, and that it is consistent."""
        stored = await self._both(lambda engine: engine.get(self.ids))
        await self._both(_counts)
        await self._both(lambda engine: engine.paused())
        await self._both(lambda engine: engine.register_schedules({}))
        await self._both(lambda engine: engine.workers(60 * SECOND))
        await self._both(lambda engine: engine.unroutable(10 * SECOND))
        before, self.stored = self.stored, {task.id: task for task in stored}  # one task may stand for several ids
        _check_limits(self.stored.values(), self.starts)
        _check_uniqueness(self.stored.values())
        for task in stored:
            _check_record(task, self.stored)
            if task.id in before:
                _check_change(before[task.id], task, by_hand=by_hand)

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
        return NewTask(
            id=self.ids[-1],
            name=asked.name,
            arguments="{}",
            queue=asked.queue,
            priority=asked.priority,
            retention=asked.retention * SECOND,
            after=after,
            held=asked.held,
            wait=asked.wait * SECOND,
            failure=FAILURE if asked.plain else None,
            chained=asked.chained,
            expires=None if asked.expires is None else asked.expires * SECOND,
            unique_key=None if asked.plain else asked.unique_key,
            idempotency_key=asked.idempotency_key,
            limit_key=asked.limit_key,
            rerun_after_crash=asked.rerun_after_crash,
            max_queued=asked.max_queued,
        )

    def _ids(self, numbers: Sequence[int]) -> list[str]:
        return _counted_back(self.ids, numbers) or [task_id(START, bytes(10))]

    def _tasks(self, numbers: Sequence[int]) -> list[Task]:
        return [self.stored[id] for id in self._ids(numbers) if id in self.stored]

    def _attempts(self, numbers: Sequence[int]) -> list[Task]:
        return _counted_back(self.attempts, numbers)


def difference(yours: object, memory: object) -> str:
    """Return how an answer differs from that of the engine in memory, a line for each field."""
    match yours, memory:
        case Task(), Task() if yours.id == memory.id:
            pairs = ((one.name, getattr(yours, one.name), getattr(memory, one.name)) for one in fields(Task))
            return "\n".join(
                f"task {yours.id}: {name} is {mine!r}, in memory {theirs!r}"
                for name, mine, theirs in pairs
                if mine != theirs
            )
        case list(), list() if len(yours) == len(memory):
            pairs_of_items = zip(yours, memory, strict=True)
            return "\n".join(difference(mine, theirs) for mine, theirs in pairs_of_items if mine != theirs)
        case _:
            return f"your engine answers {_briefly(yours)}, the one in memory {_briefly(memory)}"


def _briefly(answer: object) -> str:
    match answer:
        case Task():
            return f"task {answer.id} ({answer.state})"
        case list():
            return f"[{', '.join(map(_briefly, answer))}]"
        case _:
            return repr(answer)


@dataclass(frozen=True)
class Step:
    """An operation on both engines."""

    method: Callable[..., Awaitable[None]]
    arguments: dict[str, Any]

    async def take(self, world: World) -> None:
        await self.method(world, **self.arguments)
        await world.check(by_hand=self.method is World.requeue)

    def without(self, name: str, index: int) -> "Step":
        """Return the step with one item less in this argument, which is a list."""
        items = self.arguments[name]
        return replace(self, arguments=self.arguments | {name: items[:index] + items[index + 1 :]})

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.method.__name__}({arguments})"


class GeneratedConformance:
    """Compare an engine with the one in memory. A subclass opens its engine, empty, once per example.

    class TestMyEngineGenerated(GeneratedConformance):
        def open(self, clock: FakeClock) -> AbstractAsyncContextManager[Engine]:
            return MyEngine(clock=clock)

    It draws ``examples``, always the same, but starts no further one after ``seconds``, so a slow engine may pass after
    a few. ``AFTERWARDS_EXAMPLES=2000`` draws as many, however long they take. Run that before you trust an engine.
    """

    pytestmark = pytest.mark.anyio
    examples: ClassVar[int] = 100
    steps: ClassVar[int] = 40
    seconds: ClassVar[float] = 5

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    def open(self, clock: FakeClock) -> AbstractAsyncContextManager[Engine]:
        """Return a new, empty engine that reads the clock. Leaving the context removes it."""
        raise NotImplementedError("open your engine here")

    def reference(self, clock: FakeClock) -> Engine:
        """Return the engine to compare with."""
        return MemoryEngine(clock=clock)

    async def test_whatever_is_done_leaves_what_it_leaves_in_memory(self) -> None:
        for seed in self._seeds():
            random = Random(seed)
            steps = [_any_step(random) for _ in range(self.steps)]
            if await self._difference(steps) is not None:
                shortest = await self._with_shorter_lists(await self._shortened(steps))
                shown, found = "\n".join(map(str, shortest)), await self._difference(shortest)
                raise AssertionError(f"seed {seed} differs after\n{shown}\n\n{found}") from found

    def _seeds(self) -> Iterator[int]:
        if wanted := os.environ.get("AFTERWARDS_EXAMPLES"):
            yield from range(int(wanted))
            return
        end = time.monotonic() + self.seconds
        for seed in range(self.examples):
            yield seed
            if time.monotonic() > end:
                return

    async def _difference(self, steps: Sequence[Step]) -> Exception | None:
        clock = FakeClock()
        async with self.open(clock) as engine:
            world = World(engine, self.reference(clock), clock)
            try:
                for step in steps:
                    await step.take(world)
            except Exception as difference:  # the engine in memory raises nothing here, whatever this one raises
                return difference
        return None

    async def _shortened(self, steps: Sequence[Step]) -> list[Step]:
        """Leave out steps that the difference does not need: first halves, then single steps."""
        kept = list(steps)
        size = len(kept)
        while size := size // 2:
            for start in reversed(range(0, len(kept), size)):
                fewer = kept[:start] + kept[start + size :]
                if await self._difference(fewer) is not None:
                    kept = fewer
        return kept

    async def _with_shorter_lists(self, steps: Sequence[Step]) -> list[Step]:
        """Leave out the calls and numbers of a step that the difference does not need."""
        kept = list(steps)
        lists = [
            (number, name)
            for number, step in enumerate(kept)
            for name, value in step.arguments.items()
            if isinstance(value, list)
        ]
        for number, name in lists:
            for index in reversed(range(len(kept[number].arguments[name]))):
                fewer = [*kept[:number], kept[number].without(name, index), *kept[number + 1 :]]
                if await self._difference(fewer) is not None:
                    kept = fewer
        return kept


def _any_step(random: Random) -> Step:
    [(_, method, arguments)] = random.choices(STEPS, weights=[weight for weight, _, _ in STEPS])
    return Step(method, {name: draw(random) for name, draw in arguments.items()})


def _among(*values: object) -> Draw:
    return lambda random: random.choice(values)


def _several(draw: Draw, most: int) -> Draw:
    return lambda random: [draw(random) for _ in range(random.randint(1, most))]


def _maybe(draw: Draw) -> Draw:
    return lambda random: draw(random) if random.random() < 0.3 else None


def _call(random: Random) -> Asked:
    return Asked(
        name=random.choice(["greet", "greet", "thank"]),
        queue=random.choice(["default", "default", "mail"]),
        priority=random.choice([0, 0, -1, 1]),
        retention=random.choice([100, 1_000_000]),
        after=random.choice([None, 0, 0, 1, 2]),
        held=random.random() < 0.2,
        wait=random.choice([0, 0, 0, 0, 5, 90]),
        plain=random.random() < 0.05,
        chained=random.random() < 0.7,
        expires=random.choice([None, None, None, 20, 70]),
        unique_key=random.choice([None, None, None, "one", "two"]),
        idempotency_key=random.choice([None, None, None, None, "this", "that"]),
        limit_key=random.choice(["", "*", "ada", "eve"]),
        rerun_after_crash=random.random() < 0.9,
        max_queued=random.choice([None, None, None, 6]),
    )


_number = _among(*range(8))
_numbers = _several(_number, most=3)
_names = _among(NAMES, frozenset({"greet"}), frozenset({"thank"}), frozenset())
_queues = _among(frozenset({"default", "mail"}), frozenset({"default"}), frozenset({"mail"}), frozenset())
_states = _among(
    frozenset({State.RUNNING}),
    frozenset({State.WAITING, State.CANCELLED}),
    frozenset({State.SCHEDULED, State.QUEUED}),  # each engine may choose when a task moves from one to the other
    frozenset({State.SUCCEEDED, State.FAILED}),
)
_outcome = _among(
    Succeeded('"done"'),
    Succeeded('"done"'),
    Raised(error=ValueError("no"), delay=10 * SECOND),
    Raised(error=ValueError("no"), delay=10 * SECOND),
    Snoozed(10 * SECOND),
    Cancelled("by itself"),
    Released(),
    SetAside("its arguments do not fit"),
)

STEPS: list[tuple[int, Callable[..., Awaitable[None]], dict[str, Draw]]] = [
    (5, World.enqueue, {"calls": _several(_call, most=4), "slots": _among(0, 0, 1, 3)}),
    (
        2,
        World.publish,
        {
            "numbers": _numbers,
            "attempt": _among(0, 0, 1),
            "start": _among(None, None, -1, 30, lifecycle.HOLD, lifecycle.HOLD),
        },
    ),
    (4, World.claim, {"suspects": _among(0, 1, 2)}),
    (3, World.claim, {"limit": _among(1, 2, 3)}),
    (2, World.claim, {"names": _names, "queues": _maybe(_queues), "numbers": _maybe(_numbers)}),
    (6, World.finish, {"numbers": _numbers, "outcome": _outcome, "retries": _among(0, 1, 2)}),
    (2, World.heartbeat, {"numbers": _numbers, "progress": _among(None, Progress(done=1), Progress(done=2, total=3))}),
    (1, World.look_for_expired, {}),
    (1, World.give_up_what_was_seen_expired, {}),
    (3, World.workers_die, {}),
    (1, World.a_reaper_is_slow, {"numbers": _numbers}),
    (2, World.cancel, {"number": _number}),
    (2, World.requeue, {"numbers": _numbers}),
    (1, World.requeue, {"numbers": lambda random: list(range(100))}),
    (1, World.prune, {}),
    (1, World.pause, {"paused": _among(*PAUSED)}),
    (2, World.resume, {"paused": _among(*PAUSED)}),
    (
        1,
        World.register_schedules,
        {"expressions": _among({"greet": "a", "thank": "b"}, {"greet": "b"}, {"thank": "a"})},
    ),
    (3, World.fire, {"calls": _several(_call, most=3), "slots": _several(_among(-2, -1, 0, 0, 1), most=3)}),
    (1, World.pause_schedules, {"names": _names}),
    (1, World.resume_schedules, {"names": _names}),
    (1, World.announce, {"names": _names, "queues": _maybe(_queues), "has_left": _among(False, True)}),
    (1, World.move, {"limit": _among(1, 3, 100)}),
    (3, World.time_passes, {"seconds": _among(1, 10, 29, 30, 31, 60, 100)}),
    (
        2,
        World.find,
        {
            "states": _maybe(_states),
            "names": _maybe(_names),
            "queues": _maybe(_queues),
            "before": _maybe(_number),
            "limit": _among(1, 3, 100),
        },
    ),
]


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


def _check_limits(tasks: Collection[Task], starts: dict[Group, list[datetime]]) -> None:
    """Check that no limit is exceeded at any instant, and no rate within any span."""
    running = Counter(group_of(task.name, task.limit_key, LIMITS) for task in tasks if task.state is State.RUNNING)
    for name, limit in LIMITS.items():
        assert limit.max_concurrency is not None and limit.rate is not None
        assert all(count <= limit.max_concurrency for group, count in running.items() if group[0] == name)
        for group in (group for group in starts if group[0] == name):
            for first, last in zip(starts[group], starts[group][limit.rate.count :], strict=False):
                assert last - first >= limit.rate.per


def _check_uniqueness(tasks: Collection[Task]) -> None:
    assert _no_two(task.unique_key for task in tasks if not task.state.finished)
    assert _no_two(task.idempotency_key for task in tasks)


def _no_two(keys: Iterable[str | None]) -> bool:
    return max(Counter(key for key in keys if key is not None).values(), default=0) < 2


def _check_record(task: Task, tasks: dict[str, Task]) -> None:
    """Check what holds for every record at every time."""
    assert (task.state is State.RUNNING) == (task.lease_until is not None)
    assert task.state.finished == (task.finished_at is not None)
    assert (task.state is State.CANCELLED) == (task.reason is not None)
    assert task.state is not State.SCHEDULED or task.run_at is not None
    assert task.state in (State.SCHEDULED, State.WAITING) or task.run_at is None
    assert task.state is State.RUNNING or task.cancel_requested is None
    assert task.state is State.CANCELLED or task.cause is None
    assert task.state is State.QUEUED or task.set_aside is None
    assert task.state is not State.WAITING or not tasks[task.after or ""].state.finished
    attempts = [failure.attempt for failure in task.failures]
    assert attempts == sorted(set(attempts)) and len(attempts) <= task.attempt


def _check_change(old: Task, new: Task, *, by_hand: bool) -> None:
    """Check what holds from one step to the next."""
    assert old.attempt <= new.attempt <= old.attempt + 1
    assert new.failures[: min(len(old.failures), FIRST_FAILURES)] == old.failures[:FIRST_FAILURES]
    assert new.failures_left_out >= old.failures_left_out
    assert by_hand or not old.state.finished or new == old
