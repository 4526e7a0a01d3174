"""Crashes of a worker, simulated: who comes back with whom, and who ends as failed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from afterwards.core import lifecycle, limits, settling
from afterwards.core.settling import MOST_CRASHES
from afterwards.core.task import State, Task
from afterwards.testing.clock import START

SLOTS = 20
LEASE = timedelta(seconds=30)


@dataclass(frozen=True)
class Kind:
    """How long a task runs, and whether it kills its process at the end of that."""

    seconds: float
    kills: bool = False


INNOCENT = [Kind(0.1), Kind(3), Kind(60), Kind(3600)]
POISON = [Kind(0, kills=True), Kind(1, kills=True), Kind(10, kills=True)]


class Machine:
    """One worker that is started again whenever it was killed."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = {str(number): kind for number, kind in enumerate(kinds)}
        self.tasks = {id: self._task(id) for id in self.kinds}
        self.ends: dict[str, float] = {}
        self.seconds = 0.0
        self.crashes = 0

    def run(self) -> None:
        """Until everything has finished."""
        while any(not task.state.finished for task in self.tasks.values()):
            self._claim()
            id = min(self.ends, key=lambda id: self.ends[id])
            self.seconds = self.ends[id]
            if self.kinds[id].kills:
                self.crash()
            else:
                del self.ends[id]
                self._put(settling.succeed(self.tasks[id], settling.SUCCEEDED))

    def crash(self) -> None:
        self.crashes += 1
        lost = [self.tasks[id] for id in self.ends]
        self.ends.clear()
        for settled in settling.lose_all(lost, now=START + LEASE):
            self._put(settled)

    def _claim(self) -> None:
        queued = [task for task in self.tasks.values() if task.state is State.QUEUED]
        suspects = 0 if any(self.tasks[id].suspect for id in self.ends) else 1
        candidates = [(task, task.suspect, ("f", "")) for task in queued]
        for task in limits.admit(candidates, {}, limit=SLOTS - len(self.ends), suspects=suspects):
            self.tasks[task.id] = lifecycle.claim(task, f"worker {self.crashes}", LEASE, START)
            self.ends[task.id] = self.seconds + self.kinds[task.id].seconds

    def _put(self, settled: settling.Settled) -> None:
        after = lifecycle.finish(self.tasks[settled.lease.task_id], settled, START + LEASE)
        assert after
        self.tasks[after.id] = replace(after, failures=())

    def _task(self, id: str) -> Task:
        return Task(id=id, name="f", arguments="{}", created_at=START, state=State.QUEUED)


def test_what_ran_side_by_side_when_a_process_was_killed_comes_back_side_by_side() -> None:
    machine = Machine([Kind(3600)] * SLOTS)
    machine._claim()
    machine.crash()
    machine.run()
    assert machine.seconds == 3600


@pytest.mark.parametrize("poison", POISON)
def test_a_poison_fails_after_few_crashes_and_no_neighbour_does(poison: Kind) -> None:
    machine = Machine([*[Kind(60)] * 9, poison])
    machine.run()
    assert [task.state for task in machine.tasks.values()] == [State.SUCCEEDED] * 9 + [State.FAILED]
    assert machine.crashes == 2 + MOST_CRASHES


@pytest.mark.parametrize("seed", range(100))
def test_of_any_population_only_the_poisons_fail(seed: int) -> None:
    chance = random.Random(seed)
    kinds = chance.choices(INNOCENT, k=chance.randint(1, 40)) + chance.choices(POISON, k=chance.randint(1, 4))
    chance.shuffle(kinds)
    machine = Machine(kinds)
    machine.run()
    failed = {id for id, task in machine.tasks.items() if task.state is State.FAILED}
    assert failed == {id for id, kind in machine.kinds.items() if kind.kills}


def test_a_crash_beside_one_that_was_lost_before_does_not_count() -> None:
    suspect = replace(Machine([Kind(1)]).tasks["0"], state=State.RUNNING, attempt=1, suspect=True, losses=2)
    fresh = replace(suspect, id="1", suspect=False, losses=0)
    assert settling.lose(suspect, beside=[fresh], now=START).crashed == 1
    assert settling.lose(suspect, beside=[replace(fresh, losses=1)], now=START).crashed == 0
