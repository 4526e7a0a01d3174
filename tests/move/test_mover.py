"""A move that dies at any point and is started again, beside a worker of the destination that runs what arrives."""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from afterwards.cli import mover
from afterwards.cli.errors import CommandError, UsageError
from afterwards.cli.mover import Moved, move, refuse_live_workers, refuse_same_store
from afterwards.core.routing import LiveWorker
from afterwards.core.settling import Raised
from afterwards.core.task import State
from afterwards.engine import Batch, Chunk, Engine, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.moving import Moving
from afterwards.testing.conformance.moving_tasks import MovedTasks
from afterwards.testing.conformance.support import FAILURE, Conformance, ids
from servers.postgres import PostgresServer

TO = "the destination"


class Died(BaseException):
    """The process was killed: nothing handles it."""


class Mortal:
    """An engine whose process dies before or after one of the calls that move."""

    def __init__(self, engine: Engine, lives: list[int], *, before: bool) -> None:
        self._engine = engine
        self._lives = lives  # shared by source and destination
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def hand_over(self, to: str, *, limit: int, done: Batch | None = None) -> Batch | None:
        self._die(now=self._before)
        batch = await self._engine.hand_over(to, limit=limit, done=done)
        self._die(now=not self._before)
        return batch

    async def take_over(self, batch: Batch) -> Any:
        self._die(now=self._before)
        arrived = await self._engine.take_over(batch)
        self._die(now=not self._before)
        return arrived

    def _die(self, *, now: bool) -> None:
        if now:
            self._lives[0] -= 1
            if self._lives[0] < 0:
                raise Died


async def to_the_end(source: Any, destination: Any) -> Moved:
    return await move(source, destination, TO, report=lambda moved: None, stopped=lambda: False)


SERVER = pytest.mark.xdist_group("postgres")


class TestInterrupted(Conformance):
    @pytest.fixture(
        params=[
            "file to file",
            "memory to file",
            "file to memory",
            pytest.param("file to server", marks=SERVER),
            pytest.param("server to file", marks=SERVER),
            pytest.param("server to server", marks=SERVER),
        ]
    )
    async def both(self, request: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[tuple[Engine, Engine]]:
        source, _, destination = request.param.partition(" to ")
        made: list[Any] = []
        for number, kind in enumerate((source, destination)):
            if kind == "server":
                url = request.getfixturevalue("postgres").url(schema=f"move_{uuid4().hex}")
                made.append(PostgresEngine(url, clock=clock))
            elif kind == "file":
                made.append(SQLiteEngine(tmp_path / f"{number}.db", clock=clock))
            else:
                made.append(MemoryEngine(clock=clock))
        async with made[0] as one, made[1] as other:
            yield one, other

    async def work(self, engine: Engine, ran: Counter[str]) -> None:
        """Run all that can start, with what follows it, and delete what has finished."""
        while taken := await self.claim(engine):
            ran.update(ids(taken))
            for task in taken:
                assert (await engine.read_chunks(task.id, start=0, limit=9)) in ([], [b"x"] * 3)
            await self.succeed(engine, *taken)
            await engine.prune(100)

    @pytest.mark.parametrize("before", [True, False])
    async def test_each_task_runs_once_wherever_a_move_dies(
        self, both: tuple[Engine, Engine], before: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mover, "BATCH", 2)
        source, destination = both
        ran: Counter[str] = Counter()
        stored: list[str] = []
        for lives in range(40):
            first = self.task(retention=timedelta())
            more = [self.task(after=first.id, retention=timedelta()), self.task(retention=timedelta())]
            await source.write_chunks([Chunk(file=first.id, task=first.id, number=n, content=b"x") for n in range(3)])
            await source.enqueue([first, *more, last := self.task(after=more[0].id)])
            stored += ids([first, *more, last])
            left = [lives]
            try:
                await to_the_end(Mortal(source, left, before=before), Mortal(destination, left, before=before))
            except Died:
                await self.work(destination, ran)
            else:
                break
        assert lives > 5
        await self.work(destination, ran)
        assert (await to_the_end(source, destination)).tasks == 0
        assert ran == dict.fromkeys(stored, 1)
        assert await source.find(Query()) == []

    async def test_a_move_for_another_destination_is_finished_first(self, both: tuple[Engine, Engine]) -> None:
        source, destination = both
        await source.enqueue([self.task()])
        await source.hand_over("another destination", limit=10)
        with pytest.raises(UsageError, match="a move to another destination was interrupted"):
            await to_the_end(source, destination)
        assert await destination.find(Query()) == []

    async def test_it_ends_after_a_batch_when_asked_to(
        self, both: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mover, "BATCH", 1)
        source, destination = both
        await source.enqueue([self.task() for _ in range(5)])
        told: list[int] = []
        moved = await move(
            source,
            destination,
            TO,
            report=lambda moved: told.append(moved.tasks),
            stopped=lambda: len(told) == 2,
        )
        assert (moved.finished, told) == (False, [1, 2])
        moved = await to_the_end(source, destination)
        assert moved.finished
        assert len(await destination.find(Query())) == 5


class TestWorkersOfTheSource(Conformance):
    @pytest.fixture
    def engine(self, clock: FakeClock) -> MemoryEngine:
        return MemoryEngine(clock=clock)

    async def announce(self, engine: Engine, id: str, *, has_left: bool = False) -> None:
        await engine.announce(
            [LiveWorker(id=id, host="web", pid="7", started_at=START, names=frozenset(), has_left=has_left)]
        )

    async def test_a_live_one_is_refused_until_a_minute_after_it_was_seen(
        self, engine: MemoryEngine, clock: FakeClock
    ) -> None:
        await refuse_live_workers(engine)
        await self.announce(engine, "one")
        with pytest.raises(CommandError, match="process 7 on web"):
            await refuse_live_workers(engine)
        clock.advance(61)
        await refuse_live_workers(engine)
        for number in range(5):
            await self.announce(engine, str(number))
        with pytest.raises(CommandError, match="and 2 more"):
            await refuse_live_workers(engine)

    async def test_one_that_has_left_is_refused_while_it_holds_a_task(self, engine: MemoryEngine) -> None:
        await self.announce(engine, "worker", has_left=True)
        await refuse_live_workers(engine)
        task = await self.running(engine)
        with pytest.raises(CommandError):
            await refuse_live_workers(engine)
        await self.succeed(engine, task)
        await refuse_live_workers(engine)

    async def test_one_that_starts_during_a_move_stops_it(
        self, engine: MemoryEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mover, "BATCH", 1)
        other = MemoryEngine(clock=clock)
        await engine.enqueue([self.task() for _ in range(3)])

        class Starting(MemoryEngine):
            async def take_over(self, batch: Batch) -> Any:
                await engine.announce([LiveWorker(id="late", host="web", pid="7", started_at=START, names=frozenset())])
                return await super().take_over(batch)

        with pytest.raises(CommandError, match="process 7 on web"):
            await to_the_end(engine, Starting(clock=clock))
        clock.advance(61)
        await to_the_end(engine, other)

    async def test_the_same_store_by_two_names_is_found(self, engine: MemoryEngine, clock: FakeClock) -> None:
        await refuse_same_store(engine, MemoryEngine(clock=clock))
        with pytest.raises(UsageError, match="the same store"):
            await refuse_same_store(engine, engine)


class TestFromFileToFile(Moving, MovedTasks):
    @pytest.fixture
    async def engine(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Engine]:
        async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
            yield engine

    @pytest.fixture
    async def other(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Engine]:
        async with SQLiteEngine(tmp_path / "other.db", clock=clock) as engine:
            yield engine


@pytest.mark.xdist_group("postgres")
class TestFromFileToServer(Moving, MovedTasks):
    @pytest.fixture
    async def engine(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Engine]:
        async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
            yield engine

    @pytest.fixture
    async def other(self, clock: FakeClock, postgres: PostgresServer) -> AsyncIterator[Engine]:
        async with PostgresEngine(postgres.url(schema=f"move_{uuid4().hex}"), clock=clock) as engine:
            yield engine

    async def test_text_that_a_server_does_not_store_is_replaced(
        self, engine: Engine, other: Engine, clock: FakeClock
    ) -> None:
        task = await self.ended(engine, Raised(error=ValueError("a\0b")), origin="GET /\0")
        assert task.failures[0].message == "a\0b"
        await self.move(engine, other)
        moved = await self.one(other, task)
        assert (moved.origin, moved.failures[0].message) == (
            "GET /\N{REPLACEMENT CHARACTER}",
            "a\N{REPLACEMENT CHARACTER}b",
        )


def change(file: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute(statement, values)


class TestWhatCannotBeRead(Conformance):
    """Rows of a later version, and damaged ones."""

    @pytest.fixture
    async def engine(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Engine]:
        async with SQLiteEngine(tmp_path / "tasks.db", clock=clock) as engine:
            yield engine

    @pytest.mark.parametrize(
        "damage",
        [
            "state = 'resting'",
            "attempt = 'many'",
            """more = '{"later": 1}'""",
            "run_at = 9e18, state = 'scheduled'",
            "name = CAST(x'ff' AS TEXT)",
        ],
    )
    async def test_such_a_task_stays_and_all_others_are_moved(
        self, engine: Engine, clock: FakeClock, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mover, "BATCH", 3)
        tasks = [self.task() for _ in range(20)]
        await engine.enqueue(tasks)
        change(tmp_path / "tasks.db", f"UPDATE afterwards_tasks SET {damage} WHERE seq BETWEEN 6 AND 15")
        other = MemoryEngine(clock=clock)
        moved = await to_the_end(engine, other)
        assert (moved.finished, moved.tasks) == (True, 10)
        assert ids(other.tasks) == ids(tasks[:5] + tasks[15:])
        assert len(await engine.find(Query())) == 10
        with closing(sqlite3.connect(tmp_path / "tasks.db")) as opened:
            opened.text_factory = bytes
            column, _, wanted = damage.replace("run_at = 9e18, ", "").partition(" = ")
            [[count]] = opened.execute(f"SELECT count(*) FROM afterwards_tasks WHERE {column} IS {wanted}").fetchall()
        assert count == 10

    async def test_a_task_set_aside_by_another_version_is_moved_if_it_can_be_read_now(
        self, engine: Engine, clock: FakeClock, tmp_path: Path
    ) -> None:
        await engine.enqueue([task := self.task()])
        change(
            tmp_path / "tasks.db",
            "UPDATE afterwards_tasks SET state = 'unreadable', aside_from = 'queued', set_aside = 'no such field'",
        )
        other = MemoryEngine(clock=clock)
        await to_the_end(engine, other)
        [moved] = other.tasks
        assert (moved.id, moved.state, moved.set_aside) == (task.id, State.QUEUED, "no such field")
        assert ids(await self.claim(other, ids=[task.id])) == [task.id]

    @pytest.mark.parametrize("damage", ["kind = 'tired'", "message = CAST(x'ff61' AS TEXT)", "at = 'noon'"])
    async def test_failures_that_cannot_be_read_are_moved_as_far_as_they_can(
        self, engine: Engine, clock: FakeClock, tmp_path: Path, damage: str
    ) -> None:
        await self.ended(engine, FAILURE)
        change(tmp_path / "tasks.db", f"UPDATE afterwards_failures SET {damage}")
        async with SQLiteEngine(tmp_path / "other.db", clock=clock) as other:
            assert (await to_the_end(engine, other)).tasks == 1
            [task] = await other.find(Query())
            assert len(task.failures) == 1
            assert "cannot read this failure" in task.failures[0].message

    async def test_damaged_settings_and_chunks_are_left_and_do_not_stop_it(
        self, engine: Engine, clock: FakeClock, tmp_path: Path
    ) -> None:
        await engine.enqueue([task := self.task()])
        await engine.write_chunks([Chunk(file=task.id, task=task.id, number=n, content=b"x") for n in range(3)])
        await engine.register_schedules({"greet": "every 1:00:00", "thank": "every 1:00:00"})
        change(tmp_path / "tasks.db", "UPDATE afterwards_chunks SET content = 5 WHERE number = 1")
        change(tmp_path / "tasks.db", "UPDATE afterwards_schedules SET after = 'noon' WHERE name = 'thank'")
        change(tmp_path / "tasks.db", "INSERT INTO afterwards_paused VALUES ('queue', CAST(x'ff' AS TEXT))")
        change(tmp_path / "tasks.db", "INSERT INTO afterwards_starts VALUES ('a', 'b', 'noon', 'night')")
        change(tmp_path / "tasks.db", "INSERT INTO afterwards_aliases VALUES (5, 6)")
        other = MemoryEngine(clock=clock)
        moved = await to_the_end(engine, other)
        assert (moved.finished, moved.tasks, moved.schedules) == (True, 1, 1)
        assert await other.read_chunks(task.id, start=0, limit=9) == [b"x", b"x"]
