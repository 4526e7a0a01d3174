"""Which chains a worker takes for long ones."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from afterwards.core.task import State, Task
from afterwards.worker import chain_lengths
from afterwards.worker.chain_lengths import ChainLengths

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def a_task(after: str | None = None) -> Task:
    id = str(uuid4())
    return Task(id=id, name="f", arguments="{}", created_at=NOW, state=State.RUNNING, after=after)


def ended(counted: ChainLengths, count: int) -> list[bool]:
    """Of a chain of so many tasks that end here, which are taken for the middle of a long one."""
    found, before = [], None
    for _ in range(count):
        task = a_task(before)
        found.append(counted.is_long(task))
        before = task.id
    return found


def test_from_its_third_task_on_a_chain_is_long() -> None:
    assert ended(ChainLengths(), 5) == [False, False, True, True, True]


def test_tasks_behind_none_are_no_chain() -> None:
    counted = ChainLengths()
    assert not any(counted.is_long(a_task()) for _ in range(10))


def test_a_chain_that_began_elsewhere_is_counted_from_where_it_came() -> None:
    counted = ChainLengths()
    first = a_task(after=str(uuid4()))
    second = a_task(after=first.id)
    assert [counted.is_long(first), counted.is_long(second)] == [False, True]


def test_only_so_many_chains_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_lengths, "MOST_REMEMBERED", 2)
    counted = ChainLengths()
    seconds = [a_task(after=str(uuid4())) for _ in range(3)]
    for second in seconds:
        counted.is_long(second)
    thirds = [counted.is_long(a_task(after=second.id)) for second in reversed(seconds)]
    assert thirds == [True, True, False]
