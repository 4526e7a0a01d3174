"""Very many tasks behind one: no transaction takes long, and none of them is forgotten."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from time import monotonic
from typing import TypeVar

import pytest

from afterwards.core import lifecycle
from afterwards.core.settling import Settled
from afterwards.core.task import NewTask, State, Task, task_id
from afterwards.engine import Claim, Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io.connection import BEGIN_WRITING, COMMIT, OwnConnection
from afterwards.engines.sqlite.io.schema import connect
from afterwards.engines.sqlite.operations import claiming, finishing, pruning, reading, storing, successors

pytestmark = pytest.mark.anyio

T = TypeVar("T")

MANY = 4 * successors.MOST_DECIDED
TIMEOUT = 30.0


class File:
    """A file as its writer sees it, one transaction after the other."""

    def __init__(self, connection: OwnConnection) -> None:
        self.connection = connection
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def do(self, change: Callable[[OwnConnection], T]) -> T:
        """In one transaction, which decides on so many at most as one may."""
        self.connection.execute(BEGIN_WRITING)
        self.connection.begin(self.now)
        done = change(self.connection)
        self.connection.flush()
        self.connection.execute(COMMIT)
        assert self.connection.decided <= successors.MOST_DECIDED
        return done

    def store(self, tasks: Sequence[NewTask]) -> None:
        self.do(lambda connection: storing.enqueue(connection, tasks))

    def claim(self) -> list[Task]:
        claim = Claim(worker="w", limit=10, lease=timedelta(minutes=1), names=frozenset({"f"}))
        return self.do(lambda connection: claiming.claim(connection, claim, connection.look()))

    def finish(self, tasks: Sequence[Task], state: State) -> None:
        settled = [Settled(lease=task.lease, state=state) for task in tasks]
        self.do(lambda connection: finishing.finish(connection, settled))

    def go_on(self) -> int:
        """Do what is left; in how many transactions."""
        transactions = 1
        while self.do(successors.go_on):
            transactions += 1
        return transactions

    def counting(self, change: Callable[[], object]) -> int:
        """Do something; how many hundreds of steps the machine of SQLite took for it."""
        taken = count()
        self.connection.set_progress_handler(lambda: next(taken) < 0, 100)
        change()
        self.connection.set_progress_handler(None, 0)
        return next(taken)

    def states(self, tasks: Sequence[NewTask]) -> list[State]:
        return self.do(lambda connection: [task.state for task in reading.get(connection, [one.id for one in tasks])])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def file(path: Path) -> Iterator[File]:
    with closing(connect(path, patience=timedelta(seconds=5))) as connection:
        yield File(connection)


def new(after: str | None = None, retention: timedelta = timedelta(days=7)) -> NewTask:
    id = task_id(datetime.now(UTC), os.urandom(10))
    return NewTask(id=id, name="f", arguments="{}", after=after, retention=retention)


def chain(length: int) -> list[NewTask]:
    tasks = [new()]
    while len(tasks) < length:
        tasks.append(new(tasks[-1].id))
    return tasks


def fan(width: int) -> list[NewTask]:
    first = new()
    return [first, *(new(first.id) for _ in range(width - 1))]


def broken(file: File, tasks: Sequence[NewTask]) -> None:
    """The first of them has failed, and so far one transaction has decided on those behind it."""
    file.store(tasks)
    file.finish(file.claim(), State.FAILED)


@pytest.mark.parametrize("shape", [chain, fan])
def test_those_behind_a_failure_are_cancelled_in_pieces(file: File, shape: Callable[[int], list[NewTask]]) -> None:
    tasks = shape(MANY)
    broken(file, tasks)
    assert file.states(tasks).count(State.CANCELLED) == successors.MOST_DECIDED
    assert file.go_on() >= MANY // successors.MOST_DECIDED - 1
    assert file.states(tasks) == [State.FAILED] + [State.CANCELLED] * (MANY - 1)


def test_those_behind_a_success_are_queued_in_pieces(file: File) -> None:
    tasks = fan(MANY)
    file.store(tasks)
    file.finish(file.claim(), State.SUCCEEDED)
    assert file.states(tasks).count(State.QUEUED) == successors.MOST_DECIDED
    file.go_on()
    assert file.states(tasks) == [State.SUCCEEDED] + [State.QUEUED] * (MANY - 1)


@pytest.mark.parametrize("shape", [chain, fan])
def test_those_behind_a_requeued_task_come_back_in_pieces(file: File, shape: Callable[[int], list[NewTask]]) -> None:
    tasks = shape(MANY)
    broken(file, tasks)
    file.go_on()
    file.do(lambda connection: finishing.requeue(connection, [tasks[0].id]))
    assert file.states(tasks).count(State.WAITING) == successors.MOST_DECIDED
    file.go_on()
    assert file.states(tasks) == [State.QUEUED] + [State.WAITING] * (MANY - 1)


@pytest.mark.parametrize("shape", [chain, fan])
def test_a_requeue_amid_the_pieces_brings_all_back(file: File, shape: Callable[[int], list[NewTask]]) -> None:
    tasks = shape(MANY)
    broken(file, tasks)
    file.do(lambda connection: finishing.requeue(connection, [tasks[0].id]))
    file.go_on()
    assert file.states(tasks) == [State.QUEUED] + [State.WAITING] * (MANY - 1)


def steps_behind(path: Path, width: int) -> dict[str, float]:
    """The steps for each task that is left behind one that fails, is requeued, and succeeds."""
    with closing(connect(path / f"{width}.db", patience=timedelta(seconds=5))) as connection:
        file, tasks = File(connection), fan(width)
        broken(file, tasks)
        failed = file.counting(file.go_on)
        file.do(lambda connection: finishing.requeue(connection, [tasks[0].id]))
        requeued = file.counting(file.go_on)
        file.finish(file.claim(), State.SUCCEEDED)
        succeeded = file.counting(file.go_on)
        assert file.states(tasks) == [State.SUCCEEDED] + [State.QUEUED] * (width - 1)
    left = width - successors.MOST_DECIDED
    return {"failed": failed / left, "requeued": requeued / left, "succeeded": succeeded / left}


def test_ten_times_as_many_behind_a_task_take_ten_times_as_many_steps(tmp_path: Path) -> None:
    few, many = steps_behind(tmp_path, MANY), steps_behind(tmp_path, 10 * MANY)
    assert {change for change, steps in many.items() if steps > 1.15 * few[change]} == set()


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
def test_those_that_come_back_late_find_the_task_before_them_ended(file: File, end: State) -> None:
    tasks = fan(MANY)
    broken(file, tasks)
    file.go_on()
    file.do(lambda connection: finishing.requeue(connection, [tasks[0].id]))
    file.finish(file.claim(), end)
    file.go_on()
    behind_it = State.QUEUED if end is State.SUCCEEDED else State.CANCELLED
    assert file.states(tasks) == [end] + [behind_it] * (MANY - 1)


def test_a_task_is_not_pruned_before_those_behind_it_are_decided_on(file: File) -> None:
    tasks = [new(retention=timedelta())]
    tasks += [new(tasks[0].id) for _ in range(MANY)]
    broken(file, tasks)
    assert file.do(lambda connection: pruning.prune(connection, 10)) == 0
    file.go_on()
    assert file.do(lambda connection: pruning.prune(connection, 10)) == 1
    assert set(file.states(tasks)) == {State.CANCELLED}


def test_a_task_is_not_deleted_before_those_behind_it_are_decided_on(file: File) -> None:
    tasks = fan(MANY)
    broken(file, tasks)
    assert file.do(lambda connection: pruning.delete(connection, [tasks[0].id])) == []
    file.go_on()
    assert file.do(lambda connection: pruning.delete(connection, [tasks[0].id])) == [tasks[0].id]


async def test_what_a_dead_process_has_left_is_gone_on_with(file: File, path: Path) -> None:
    tasks = chain(MANY)
    broken(file, tasks)
    file.connection.close()
    async with SQLiteEngine(path) as engine:
        assert await engine.expired(10) == []
        deadline = monotonic() + TIMEOUT
        while await engine.find(Query(states=frozenset({State.WAITING}), limit=1)):
            assert monotonic() < deadline, "some still wait"


def test_a_record_that_is_gone_all_the_same_is_no_success(file: File) -> None:
    """The version before prunes it, for it does not know what is noted."""
    tasks = fan(MANY)
    broken(file, tasks)
    file.do(lambda connection: connection.execute("DELETE FROM afterwards_tasks WHERE state = 'failed'"))
    file.go_on()
    assert set(file.states(tasks)) == {State.CANCELLED}
    [last] = file.do(lambda connection: reading.get(connection, [tasks[-1].id]))
    assert last.reason == lifecycle.follow(last, None, file.now).reason
