"""What the end of tasks means for those behind them."""

from dataclasses import replace
from typing import Any

from afterwards.core import succession
from afterwards.core.storing import NOTHING_LOADED, has_rules, store_all
from afterwards.core.task import NewTask, State, Task
from afterwards.testing.clock import START


def new(id: str, **fields: Any) -> NewTask:
    return NewTask(id=id, name="greet", arguments="{}", **fields)


def chain(*ids: str) -> list[Task]:
    """Tasks, each behind the one before it."""
    calls = [new(id, after=before) for id, before in zip(ids, (None, *ids), strict=False)]
    return [*store_all(calls, NOTHING_LOADED, START).made]


def ended(task: Task, state: State) -> Task:
    return replace(task, state=state, finished_at=START)


def states(tasks: list[Task]) -> dict[str, State]:
    return {task.id: task.state for task in tasks}


def test_behind_a_success_only_the_next_one_goes_on() -> None:
    first, *waiting = chain("1", "2", "3")
    assert states(succession.follow_all({}, waiting, START, succeeded=["1"])) == {"2": State.QUEUED}
    assert states(succession.follow_all({"1": ended(first, State.SUCCEEDED)}, waiting, START)) == {"2": State.QUEUED}


def test_behind_a_failure_all_are_cancelled_for_its_sake() -> None:
    first, *waiting = chain("1", "2", "3")
    changed = succession.follow_all({"1": ended(first, State.FAILED)}, waiting, START)
    assert [(task.id, task.state, task.cause) for task in changed] == [
        ("2", State.CANCELLED, "1"),
        ("3", State.CANCELLED, "1"),
    ]


def test_behind_a_task_whose_record_is_gone_all_are_cancelled() -> None:
    _, *waiting = chain("1", "2", "3")
    assert {task.state for task in succession.follow_all({"1": None}, waiting, START)} == {State.CANCELLED}


def test_a_task_that_is_behind_none_of_those_that_ended_stays() -> None:
    first, *waiting = [*chain("1", "2"), *chain("4", "5")]
    assert states(succession.follow_all({"1": ended(first, State.FAILED)}, waiting, START)) == {"2": State.CANCELLED}


def test_what_runs_again_brings_back_what_was_cancelled_for_its_sake() -> None:
    first, *waiting = chain("1", "2", "3")
    cancelled = succession.follow_all({"1": ended(first, State.FAILED)}, waiting, START)
    revived = succession.revive_all([first], cancelled, (), START)
    assert states(revived) == {"2": State.WAITING, "3": State.WAITING}


def test_what_comes_back_late_follows_the_end_that_came_meanwhile() -> None:
    first, *waiting = chain("1", "2", "3")
    cancelled = succession.follow_all({"1": ended(first, State.FAILED)}, waiting, START)
    revived = succession.revive_all([ended(first, State.SUCCEEDED)], cancelled, (), START)
    assert states(revived) == {"2": State.QUEUED, "3": State.WAITING}


def test_of_two_with_one_unique_key_one_comes_back() -> None:
    first = chain("1")[0]
    calls = [new("2", after="1"), new("3", after="1")]
    loaded = replace(NOTHING_LOADED, by_id={"1": first})
    waiting = [replace(task, unique_key="k") for task in store_all(calls, loaded, START).made]
    cancelled = succession.follow_all({"1": ended(first, State.FAILED)}, waiting, START)
    assert states(succession.revive_all([first], cancelled, (), START)) == {"2": State.WAITING}
    assert succession.revive_all([first], cancelled, ["k"], START) == []


def test_what_was_set_aside_while_it_waited_follows_what_ended_meanwhile() -> None:
    first, second = chain("1", "2")
    aside = replace(second, set_aside="its column more does not hold a JSON object")
    assert succession.bring_back_all([aside], {"1": first}, START) == [second]
    [back] = succession.bring_back_all([aside], {"1": ended(first, State.SUCCEEDED)}, START)
    assert (back.state, back.set_aside) == (State.QUEUED, None)
    [back] = succession.bring_back_all([aside], {}, START)
    assert back.state is State.CANCELLED


def test_what_cannot_be_read_stays_set_aside() -> None:
    [first] = chain("1")
    assert succession.bring_back_all([replace(first, set_aside="no", unreadable="no"), first], {}, START) == []


def test_only_keys_and_limits_of_queues_ask_for_what_is_stored() -> None:
    assert not has_rules(new("1"))
    assert all(has_rules(new("1", **{field: "k"})) for field in ("unique_key", "idempotency_key"))
    assert has_rules(new("1", max_queued=1))


def test_what_was_cancelled_by_hand_is_not_cancelled_again_for_another_one_s_sake() -> None:
    first, second = chain("1", "2")
    changed = succession.cancel_all([second, first], [second], "not wanted", START)
    assert {task.id: (task.reason, task.cause) for task in changed} == {
        "1": ("not wanted", None),
        "2": ("not wanted", None),
    }
