"""The phases of a leased task, as a table: what is not in it changes nothing."""

from datetime import UTC, datetime, timedelta
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from afterwards.core.keywords import RunIn
from afterwards.core.lifecycle import HOLD
from afterwards.core.settling import Cancelled, Released, Snoozed
from afterwards.core.task import State, Task
from afterwards.worker.leased_task import UNTRIED, Event, LeasedTask, Phase

NOW = datetime(2030, 1, 1, tzinfo=UTC)

POSSIBLE = {
    (Phase.HELD, Event.REQUEST_ENDED): Phase.READY,
    (Phase.HELD, Event.ENDED): Phase.ENDED,
    (Phase.READY, Event.SLOT_TAKEN): Phase.STARTED,
    (Phase.READY, Event.ENDED): Phase.ENDED,
    (Phase.STARTED, Event.BEGAN): Phase.RUNNING,
    (Phase.STARTED, Event.ENDED): Phase.ENDED,
    (Phase.RUNNING, Event.LEFT): Phase.LEFT,
    (Phase.RUNNING, Event.ENDED): Phase.ENDED,
    (Phase.LEFT, Event.ENDED): Phase.ENDED,
    (Phase.ENDED, Event.REQUEST_ENDED): Phase.PUBLISHED,
}


def leased(phase: Phase) -> LeasedTask:
    task = Task(id="7f3", name="f", arguments="{}", created_at=NOW, state=State.RUNNING, attempt=1)
    function: Any = SimpleNamespace(is_async=True, run_in=RunIn.THREAD)
    host: Any = SimpleNamespace()
    return LeasedTask(task, task.lease, function, host, phase)


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, Event)))
def test_an_event_leads_to_the_next_phase_or_means_nothing(phase: Phase, event: Event) -> None:
    one = leased(phase)
    assert one.move(event) is ((phase, event) in POSSIBLE)
    assert one.phase is POSSIBLE.get((phase, event), phase)


def test_a_task_that_succeeds_goes_through_these_phases() -> None:
    one = leased(Phase.HELD)
    phases = []
    for event in (Event.REQUEST_ENDED, Event.SLOT_TAKEN, Event.BEGAN, Event.ENDED):
        assert one.move(event)
        phases.append(one.phase)
    assert phases == [Phase.READY, Phase.STARTED, Phase.RUNNING, Phase.ENDED]


@pytest.mark.parametrize("phase", Phase)
def test_what_has_not_started_can_begin_elsewhere(phase: Phase) -> None:
    assert leased(phase).unstarted is (phase in {Phase.HELD, Phase.READY})


@pytest.mark.parametrize("phase", Phase)
def test_what_has_ended_has_ended(phase: Phase) -> None:
    assert leased(phase).ended is (phase in {Phase.ENDED, Phase.PUBLISHED})


@pytest.mark.parametrize(
    ("phase", "outcome"),
    [
        (Phase.HELD, Snoozed(HOLD, called=False)),
        (Phase.READY, UNTRIED),
        (Phase.STARTED, Released(begun=False)),
        (Phase.RUNNING, Released(begun=False)),  # until its coroutine begins, below
    ],
)
def test_it_is_given_back_as_it_stands(phase: Phase, outcome: object) -> None:
    assert leased(phase).given_back == outcome


def test_one_whose_coroutine_began_may_have_done_something() -> None:
    one = leased(Phase.STARTED)
    one.begin(7.0)
    assert (one.phase, one.began_at, one.given_back) == (Phase.RUNNING, 7.0, Released(begun=True))


def test_a_coroutine_that_begins_after_its_end_has_not_begun() -> None:
    one = leased(Phase.ENDED)
    one.begin(7.0)
    assert (one.phase, one.began_at) == (Phase.ENDED, None)


def test_the_first_who_asks_it_to_stop_decides_as_what_it_ends() -> None:
    one = leased(Phase.RUNNING)
    one.ask_to_stop(Cancelled("enough"), 1.0)
    one.ask_to_stop(Released(), 2.0)
    assert (one.stop, one.stopped_at) == (Cancelled("enough"), 1.0)


def test_untried_costs_nothing() -> None:
    assert Snoozed(timedelta(), called=False) == UNTRIED
