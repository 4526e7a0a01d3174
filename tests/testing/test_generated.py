"""The generated comparison: how it shows that an engine differs from the one in memory."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from afterwards.core.task import State, Task
from afterwards.engine import Engine
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.generated import Asked, GeneratedConformance, difference

pytestmark = pytest.mark.anyio
TASK = Task(id="1", name="greet", arguments="{}", created_at=START, state=State.QUEUED)


class NeverCancels(MemoryEngine):
    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        return await self.get(ids)


class Comparison(GeneratedConformance):
    def open(self, clock: FakeClock) -> Engine:
        return NeverCancels(clock=clock)


async def test_a_difference_is_shown_as_few_steps_and_the_fields_that_differ() -> None:
    with pytest.raises(AssertionError) as error:
        await Comparison().test_whatever_is_done_leaves_what_it_leaves_in_memory()
    seed, *steps = str(error.value).partition("\n\n")[0].splitlines()
    assert seed.endswith("differs after")
    assert [step.partition("(")[0] for step in steps] == ["enqueue", "cancel"]
    assert steps[0].count("Asked(") == 1
    assert "in memory" in str(error.value)


def test_fields_that_are_the_same_are_left_out() -> None:
    other = replace(TASK, id="2")
    told = difference([TASK, other], [TASK, replace(other, attempt=3)])
    assert told == "task 2: attempt is 0, in memory 3"


def test_answers_of_different_length_are_listed_by_id_and_state() -> None:
    told = difference([TASK], [])
    assert told == "your engine answers [task 1 (queued)], the one in memory []"


def test_other_answers_are_shown_as_they_are() -> None:
    assert difference(None, {"a": 1}) == "your engine answers None, the one in memory {'a': 1}"


def test_a_call_is_shown_without_its_defaults() -> None:
    assert repr(Asked(queue="mail", after=0)) == "Asked(queue='mail', after=0)"
