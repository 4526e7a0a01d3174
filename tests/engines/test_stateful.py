"""Whatever senders, workers and people do, each engine keeps its promises: a model that knows only these watches."""

import asyncio
import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from afterwards.core import settling
from afterwards.core.limits import Limit, Rate
from afterwards.core.retry import Retry
from afterwards.core.settling import Cancelled, Raised, Released, Snoozed, Succeeded
from afterwards.core.task import Lease, NewTask, State, Task, task_id
from afterwards.engine import Claim, Engine, Fire, Paused
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import START, FakeClock
from servers.postgres import PostgresServer

SECOND = timedelta(seconds=1)
LEASE = 30 * SECOND
AGAIN = 15 * SECOND
NAMES = frozenset({"free", "two", "rated"})
LIMITS = {"two": Limit(max_concurrency=2), "rated": Limit(max_concurrency=3, rate=Rate(2, 20 * SECOND))}
USERS = st.sampled_from(["*", "ada", "eve"])
OUTCOMES = st.sampled_from(
    [
        Succeeded(),
        Succeeded(),
        Raised(error=ValueError("no"), delay=5 * SECOND),
        Snoozed(5 * SECOND),
        Cancelled("no"),
        Released(),
    ]
)


class Promises(RuleBasedStateMachine):
    """Does things to an engine, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.opened = self.open()
        self.engine: Engine = self.run(self.opened.__aenter__())
        self.ids: list[str] = []  # of calls; several may stand for one task
        self.running: list[Task] = []  # as their workers have them; some may be lost
        self.begun: dict[tuple[str, str], list[datetime]] = defaultdict(list)
        self.succeeded: set[str] = set()  # as workers were told
        self.by_hand: set[str] = set()  # requeued, whatever the one before it is
        self.released: set[str] = set()  # could start before the one before it was requeued
        self.fired: list[datetime] = []
        self.sent: dict[Lease, datetime] = {}  # what is on its way to a fleet, and since when
        self.received: list[Lease] = []  # may arrive at any time, and more than once
        self.started: set[Lease] = set()
        self.paused = Paused()

    def open(self) -> AbstractAsyncContextManager[Engine]:
        raise NotImplementedError

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()

    @initialize()
    def keep_a_schedule(self) -> None:
        self.run(self.engine.register_schedules({"free": "every 10 s"}))

    @rule(
        names=st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=4),
        user=USERS,
        chained=st.booleans(),
        unique=st.sampled_from([None, None, "u", "v"]),
        key=st.sampled_from([None, None, None, "k"]),
        wait=st.sampled_from([0, 0, 0, 7]),
        expires=st.sampled_from([None, None, 40]),
        slots=st.sampled_from([0, 0, 2]),
    )
    def add(self, names: list[str], slots: int, chained: bool, **asked: Any) -> None:
        tasks: list[NewTask] = []
        for name in names:
            after = tasks[-1].id if chained and tasks else None
            tasks.append(self.new(name, after=after, first=not tasks, **asked))
        claim = self.claim_of(slots) if slots else None
        stored = self.run(self.engine.enqueue(tasks, claim=claim))
        own = [task for new, task in zip(tasks, stored, strict=True) if task.id == new.id]  # else another one's answer
        self.began(task for task in own if task.state is State.RUNNING)

    def new(
        self,
        name: str,
        *,
        after: str | None = None,
        first: bool = True,
        user: str = "*",
        unique: str | None = None,
        key: str | None = None,
        wait: int = 0,
        expires: int | None = None,
    ) -> NewTask:
        self.ids.append(task_id(START, len(self.ids).to_bytes(10)))
        return NewTask(
            id=self.ids[-1],
            name=name,
            arguments="{}",
            after=after,
            chained=True,
            limit_key=user,
            unique_key=unique if first else None,
            idempotency_key=None if first else key,
            wait=wait * SECOND,
            expires=None if expires is None else expires * SECOND,
        )

    @rule(limit=st.integers(1, 5), suspects=st.integers(0, 1))
    def claim(self, limit: int, suspects: int) -> None:
        self.began(self.run(self.engine.claim(self.claim_of(limit, suspects))))

    def claim_of(self, limit: int, suspects: int = 1) -> Claim:
        return Claim(worker="w", limit=limit, lease=LEASE, names=NAMES, suspects=suspects, limits=LIMITS)

    @rule(limit=st.integers(1, 3))
    def dispatch(self, limit: int) -> None:
        """One of several dispatchers."""
        found = self.run(self.engine.dispatch(self.claim_of(limit), again=AGAIN))
        queued = {task.id: task for task in self.run(self.engine.get(self.ids)) if task.state is State.QUEUED}
        for lease in (one.lease for one in found.tasks):
            assert queued[lease.task_id].attempt + 1 == lease.attempt
            assert not self.paused.stops(queued[lease.task_id])
            assert lease not in self.sent or self.sent[lease] <= self.clock() - AGAIN
            self.sent[lease] = self.clock()
            self.received.append(lease)

    @rule(data=st.data(), slots=st.integers(0, 2))
    def arrive(self, data: st.DataObject, slots: int) -> None:
        if self.received:
            lease = data.draw(st.sampled_from(self.received))
            taken = self.run(self.engine.claim(replace(self.claim_of(slots), starts=frozenset({lease}))))
            assert [task.lease for task in taken] in ([], [lease])
            self.sent.pop(lease, None)
            self.began(taken)

    def began(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            assert task.lease not in self.started
            self.started.add(task.lease)
            assert not self.paused.stops(task)
            assert task.expires_at is None or task.expires_at > self.clock()
            if task.after is not None and task.id not in self.by_hand | self.released:
                assert task.after in self.succeeded
            self.running.append(task)
            self.begun[task.name, task.limit_key].append(self.clock())

    @rule(data=st.data(), outcome=OUTCOMES, retries=st.integers(0, 2))
    def end(self, data: st.DataObject, outcome: Any, retries: int) -> None:
        """An attempt ends, also one whose worker has been given up."""
        if self.running:
            task = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
            settled = settling.settle(task, outcome, Retry(retries), worker="w", now=self.clock(), random=0.5)
            if not self.run(self.engine.finish([settled])) and settled.state is State.SUCCEEDED:
                self.succeeded.add(task.id)

    @rule()
    def crash(self) -> None:
        self.clock.advance(LEASE)
        lost = self.run(self.engine.expired(limit=100))
        self.run(self.engine.finish([settling.lose(task, now=self.clock()) for task in lost]))

    @rule(seconds=st.sampled_from([1, 5, 9, 10, 11, 20]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.ids:
            self.run(self.engine.cancel([data.draw(st.sampled_from(self.ids))], "not wanted"))

    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        if self.ids:
            free = [task for task in self.run(self.engine.get(self.ids)) if task.state is not State.WAITING]
            for task in self.run(self.engine.requeue([data.draw(st.sampled_from(self.ids))])):
                self.released |= {other.id for other in free if other.after == task.id and not other.state.finished}
                self.succeeded.discard(task.id)
                self.by_hand.add(task.id)

    @rule(data=st.data())
    def start_now(self, data: st.DataObject) -> None:
        if self.ids:
            started = self.run(self.engine.start_now([data.draw(st.sampled_from(self.ids))]))
            assert all(task.state is State.QUEUED for task in started)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.ids:
            id = data.draw(st.sampled_from(self.ids))
            finished = [task.id for task in self.run(self.engine.get([id])) if task.state.finished]
            assert self.run(self.engine.delete([id])) == finished
            assert not finished or self.run(self.engine.get([id])) == []

    @rule(name=st.sampled_from(sorted(NAMES)))
    def pause(self, name: str) -> None:
        self.paused = Paused(names=self.paused.names | {name})
        self.run(self.engine.pause(Paused(names=frozenset({name}))))

    @rule()
    def resume(self) -> None:
        self.run(self.engine.resume(self.paused))
        self.paused = Paused()

    @rule(back=st.integers(0, 3))
    def fire(self, back: int) -> None:
        """One of several schedulers, of which some are late."""
        seconds = int((self.clock() - START).total_seconds()) // 10 * 10 - 10 * back
        at = START + timedelta(seconds=seconds)
        fire = Fire("free", at, self.new("free"))
        self.fired += [at for task in self.run(self.engine.fire([fire])) if task.id == fire.task.id]

    @invariant()
    def no_promise_is_broken(self) -> None:
        tasks = {task.id: task for task in self.run(self.engine.get(self.ids))}.values()
        running = Counter((task.name, task.limit_key) for task in tasks if task.state is State.RUNNING)
        for (name, _), count in running.items():
            limit = LIMITS.get(name)
            assert limit is None or limit.max_concurrency is None or count <= limit.max_concurrency
        for (name, _), begun in self.begun.items():
            rate = LIMITS[name].rate if name in LIMITS else None
            if rate:
                assert all(last - first >= rate.per for first, last in zip(begun, begun[rate.count :], strict=False))
        unfinished = Counter(task.unique_key for task in tasks if task.unique_key and not task.state.finished)
        keys = Counter(task.idempotency_key for task in tasks if task.idempotency_key)
        assert max([*unfinished.values(), *keys.values()], default=0) <= 1
        assert len(self.fired) == len(set(self.fired))


class InMemory(Promises):
    def open(self) -> AbstractAsyncContextManager[Engine]:
        return MemoryEngine(clock=self.clock)


class InSQLite(Promises):
    folder: ClassVar[Path]

    def open(self) -> AbstractAsyncContextManager[Engine]:
        return SQLiteEngine(Path(tempfile.mkdtemp(dir=self.folder)) / "tasks.db", clock=self.clock)


class InPostgres(Promises):
    server: ClassVar[PostgresServer]

    def open(self) -> AbstractAsyncContextManager[Engine]:
        return PostgresEngine(self.server.url(schema=f"stateful_{next(NUMBERS)}"), clock=self.clock)


NUMBERS = itertools.count(1)

EXAMPLES = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


def test_in_memory() -> None:
    run_state_machine_as_test(InMemory, settings=settings(EXAMPLES, max_examples=150))


@pytest.mark.timeout(180)
def test_in_sqlite(tmp_path: Path) -> None:
    InSQLite.folder = tmp_path
    run_state_machine_as_test(InSQLite, settings=EXAMPLES)


@pytest.mark.timeout(180)
@pytest.mark.xdist_group("postgres_stateful")
def test_in_postgres(postgres: PostgresServer) -> None:
    InPostgres.server = postgres
    run_state_machine_as_test(InPostgres, settings=settings(EXAMPLES, max_examples=10))
