"""The acts of people on tasks from a page: the words of each act, and the tasks that it applies to."""

from dataclasses import dataclass

from afterwards.core.record import TaskRecord
from afterwards.core.task import FINISHED, State
from afterwards.dashboard.actions import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class ActWords:
    """An act, as buttons and messages name it."""

    action: Action
    verb: str  # on a button
    hint: str
    done: str  # after the number of tasks: "3 tasks were ..."
    states: frozenset[State]
    asks: bool = False  # a page asks first, also for one task
    danger: bool = False


ACTS: dict[str, ActWords] = {
    act.action: act
    for act in (
        ActWords(
            action=Action.REQUEUE,
            verb="Requeue",
            hint="Queue finished tasks again, with their retries as at the beginning",
            done="queued again",
            states=FINISHED,
        ),
        ActWords(
            action=Action.START,
            verb="Run now",
            hint="Do not wait for the time of scheduled tasks",
            done="queued now",
            states=frozenset({State.SCHEDULED}),
        ),
        ActWords(
            action=Action.CANCEL,
            verb="Cancel",
            hint="Cancel unfinished tasks and those behind them; running ones are asked to stop",
            done="cancelled, or asked to stop",
            states=frozenset(State) - FINISHED,
            asks=True,
            danger=True,
        ),
        ActWords(
            action=Action.DELETE,
            verb="Delete",
            hint="Delete the records of finished tasks for ever",
            done="deleted",
            states=FINISHED,
            asks=True,
            danger=True,
        ),
    )
}


def acts_on(record: TaskRecord) -> list[ActWords]:
    """Return the acts that a task's state permits."""
    return [
        act
        for act in ACTS.values()
        if record.state in act.states and not (record.plain and act.action is Action.REQUEUE)
    ]


def acts_in(state: State | None) -> list[ActWords]:
    """Return the acts for a list of tasks in one state; None: in any."""
    return [act for act in ACTS.values() if state is None or state in act.states]
