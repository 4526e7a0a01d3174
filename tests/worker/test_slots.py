"""What a worker may lease for requests, by what its slots have done lately."""

import pytest

from afterwards.worker.slots import HELD_PER_SLOT, MOST_PER_SLOT, PACE_WINDOW, Slots

COUNT = 3


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slots(clock: Clock) -> Slots[str]:
    return Slots(COUNT, clock)


def start(slots: Slots[str], tasks: int) -> None:
    """Start tasks; those that find no slot wait."""
    slots.ready.extend(["task"] * tasks)
    while slots.next():
        pass


def end(slots: Slots[str], tasks: int) -> None:
    """End tasks, one behind the other, each in a slot of those."""
    for _ in range(tasks):
        start(slots, 1)
        slots.leave()


def test_an_idle_worker_holds_so_many_for_each_slot(slots: Slots[str]) -> None:
    assert slots.hold(100) == COUNT * HELD_PER_SLOT
    assert slots.hold(1) == 0


def test_a_busy_worker_holds_none(slots: Slots[str]) -> None:
    start(slots, COUNT)
    assert slots.hold(1) == 0


def test_while_tasks_end_quickly_as_many_may_wait(slots: Slots[str]) -> None:
    end(slots, 2)
    start(slots, COUNT + 1)
    assert len(slots.ready) == 1
    assert slots.hold(1) == 1
    start(slots, 1)
    assert slots.hold(1) == 0


def test_no_more_may_wait_than_will_begin_in_a_moment(slots: Slots[str]) -> None:
    end(slots, 4)
    start(slots, COUNT + 1)
    assert slots.hold(100) == 3
    assert slots.hold(1) == 0


def test_what_ended_longer_ago_says_nothing(slots: Slots[str], clock: Clock) -> None:
    end(slots, 2)
    clock.now += PACE_WINDOW * 1.01
    start(slots, COUNT)
    assert slots.hold(1) == 0


def test_while_very_many_end_more_are_held_but_not_without_limit(slots: Slots[str]) -> None:
    end(slots, 1000)
    assert slots.hold(1000) == COUNT * MOST_PER_SLOT


def test_what_is_held_no_longer_leaves_its_place(slots: Slots[str]) -> None:
    slots.hold(COUNT * HELD_PER_SLOT)
    slots.release(2)
    assert slots.hold(100) == 2


def test_beyond_its_slots_it_claims_what_will_begin_in_a_moment(slots: Slots[str], clock: Clock) -> None:
    assert slots.soon == 0
    end(slots, 5)
    assert slots.soon == 5
    start(slots, COUNT + 1)
    assert slots.soon == 4
    slots.hold(2)
    assert slots.soon == 2
    clock.now += PACE_WINDOW * 1.01
    assert slots.soon == 0


def test_where_all_that_run_wait_for_results_there_is_one_slot_more(slots: Slots[str]) -> None:
    for _ in range(COUNT):
        start(slots, 1)
        assert slots.lend()
    start(slots, COUNT + 3)
    for _ in range(COUNT - 1):
        assert not slots.lend()
    assert len(slots.ready) == 3, "one of those that run does not wait"
    slots.leave()
    start(slots, 0)
    assert len(slots.ready) == 2
    slots.lend()
    start(slots, 0)
    assert len(slots.ready) == 1
    slots.take_back(lent=False)
    slots.leave()
    assert slots.next() is None
