"""The judge must be able to say no: one story that keeps every promise, and one broken story for each way to lie."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from afterwards import State
from afterwards.core.task import Failure, FailureKind, Task
from chaos.checker import ON_PURPOSE, RULES, Evidence, Recovery, Rule, Violation, check, given_up
from chaos.history import Effect, Sent, What

NOW = datetime(2026, 11, 20, tzinfo=UTC)
START, END = What.START, What.END


def failure(attempt: int, kind: FailureKind = FailureKind.CRASHED, message: str = f"{ON_PURPOSE}: so") -> Failure:
    return Failure(attempt=attempt, at=NOW, worker="one", kind=kind, message=message)


def record(id: str, state: State = State.SUCCEEDED, attempt: int = 1, **fields: Any) -> Task:
    kept = {"name": "plainly", "arguments": "{}", "created_at": NOW}
    kept |= {"result": str(attempt)} if state is State.SUCCEEDED else {}
    return Task(**kept | fields, id=id, state=state, attempt=attempt)


def effects(*told: tuple[str, int, What]) -> list[Effect]:
    return [
        Effect(task=task, attempt=attempt, what=what, at=at, pid=1) for at, (task, attempt, what) in enumerate(told)
    ]


def the_story() -> Evidence:
    """first and second are a chain; crashed died once; never fails, and behind is cancelled; unsure had no answer.

    Request 0 was repeated with its key, and answered with the ids of the second try.
    """
    sent = [
        Sent(number=0, length=2, ordered=True, ids=("first", "second")),
        Sent(number=1, length=1, ordered=False, ids=("crashed",)),
        Sent(number=2, length=2, ordered=True, ids=("never", "behind")),
        Sent(number=3, length=2, ordered=True, ids=None, status=503, retry_after=True),
        Sent(number=4, length=2, ordered=False, ids=None, status=None, seconds=5.0),
        Sent(number=0, length=2, ordered=True, ids=("first again", "second again")),
    ]
    told = effects(
        ("crashed", 1, START),
        ("first", 1, START),
        ("first", 1, END),
        ("second", 1, START),
        ("second", 1, END),
        ("never", 1, START),
        ("crashed", 2, START),
        ("crashed", 2, END),
        ("unsure", 1, START),
        ("unsure", 1, END),
        ("as unsure", 1, START),
        ("as unsure", 1, END),
    )
    records = [
        record("first"),
        record("second", after="first"),
        record("crashed", attempt=2, failures=(failure(1),)),
        record("never", State.FAILED, name="never", failures=(failure(1, FailureKind.RAISED),)),
        record("behind", State.CANCELLED, attempt=0, after="never", cause="never"),
        record("unsure"),
        record("as unsure", after="unsure"),
    ]
    calls = {"first": (0, 0), "second": (0, 1), "crashed": (1, 0), "never": (2, 0), "behind": (2, 1)}
    calls |= {"unsure": (3, 0), "as unsure": (3, 1)}
    return Evidence(
        sent=sent,
        effects=told,
        records=records,
        calls=calls,
        aliases={"first again": "first", "second again": "second"},
        recoveries=[Recovery(after="a kill", seconds=9.9, at_most=10.0)],
        longest_answer=5.0,
        fail_on_purpose=frozenset({"never"}),
    )


def test_a_story_that_keeps_every_promise_is_believed() -> None:
    assert check(the_story()) == []


def changed(story: Evidence, id: str, **fields: Any) -> Evidence:
    records = [replace(record, **fields) if record.id == id else record for record in story.records]
    return replace(story, records=records)


def without_record(id: str) -> Evidence:
    story = the_story()
    return replace(story, records=[one for one in story.records if one.id != id], calls=without(story.calls, id))


def without(calls: Mapping[str, tuple[int, int]], id: str) -> dict[str, tuple[int, int]]:
    return {key: call for key, call in calls.items() if key != id}


def without_effects(task: str, what: What | None = None, attempt: int | None = None) -> Evidence:
    story = the_story()
    kept = [
        effect
        for effect in story.effects
        if not (effect.task == task and what in (None, effect.what) and attempt in (None, effect.attempt))
    ]
    return replace(story, effects=kept)


def forgotten(id: str) -> Evidence:
    return replace(without_record(id), effects=without_effects(id).effects)


def and_then(*told: tuple[str, int, What]) -> Evidence:
    """The same story, with something after its end."""
    story = the_story()
    later = [replace(effect, at=effect.at + 1000) for effect in effects(*told)]
    return replace(story, effects=[*story.effects, *later])


def recorded_again(id: str, new: str) -> Evidence:
    story = the_story()
    again = replace(story.by_id[id], id=new)
    run = effects((new, 1, START), (new, 1, END))
    return replace(
        story,
        records=[*story.records, again],
        calls=dict(story.calls) | {new: story.calls[id]},
        effects=[*story.effects, *run],
    )


def answered(number: int, **fields: Any) -> Evidence:
    """The same story, with another answer to a request."""
    story = the_story()
    return replace(story, sent=[replace(one, **fields) if one.number == number else one for one in story.sent])


def swapped(one: str, other: str) -> Evidence:
    """The effects of two tasks, each at the times of the other."""
    story = the_story()
    names = {one: other, other: one}
    return replace(story, effects=[replace(e, task=names.get(e.task, e.task)) for e in story.effects])


RAISED = (failure(1, FailureKind.RAISED),)
LIES: dict[str, tuple[Callable[[], Evidence], Rule]] = {
    "an acknowledged task without a record": (lambda: without_record("crashed"), Rule.LOST),
    "an acknowledged request of which nothing is left": (lambda: forgotten("crashed"), Rule.LOST),
    "the last task of a chain without a record": (lambda: without_record("second"), Rule.LOST),
    "a task that is said to have succeeded and never ran": (lambda: without_effects("first"), Rule.LOST),
    "a task without an answer that never ran": (lambda: without_effects("unsure"), Rule.LOST),
    "a task that ran and is not there any more": (lambda: and_then(("unknown", 1, START)), Rule.LOST),
    "a task still queued": (lambda: changed(the_story(), "second", state=State.QUEUED), Rule.UNFINISHED),
    "a repeated request of which nothing is left": (lambda: replace(the_story(), aliases={}), Rule.LOST),
    "a repeated request answered with another one's task": (
        lambda: replace(the_story(), aliases={"first again": "first", "second again": "crashed"}),
        Rule.MISRECORDED,
    ),
    "the result of another attempt": (lambda: changed(the_story(), "crashed", result="1"), Rule.MISRECORDED),
    "a failure that is the store's": (
        lambda: changed(the_story(), "never", failures=(failure(1, FailureKind.RAISED, "no connection"),)),
        Rule.MISRECORDED,
    ),
    "a failure of a kind that nothing here has": (
        lambda: changed(the_story(), "crashed", failures=(failure(1, FailureKind.TIMED_OUT),)),
        Rule.MISRECORDED,
    ),
    "an answer that says nothing": (lambda: answered(3, status=500), Rule.REFUSED),
    "a refusal without a time to try again": (lambda: answered(3, retry_after=False), Rule.REFUSED),
    "an answer that came late": (lambda: answered(4, seconds=5.1), Rule.LATE),
    "work that went on late": (
        lambda: replace(the_story(), recoveries=[Recovery(after="a kill", seconds=10.1, at_most=10.0)]),
        Rule.LATE,
    ),
    "a task that runs for ever": (lambda: changed(the_story(), "crashed", state=State.RUNNING), Rule.UNFINISHED),
    "two records of one call": (lambda: recorded_again("crashed", "its double"), Rule.DOUBLED),
    "two records of one id": (lambda: recorded_again("crashed", "crashed"), Rule.DOUBLED),
    "an attempt that two workers ran": (lambda: and_then(("first", 1, START)), Rule.DOUBLED),
    "an attempt that ended twice": (lambda: and_then(("crashed", 2, END)), Rule.DOUBLED),
    "half of a request": (lambda: without_record("as unsure"), Rule.TORN),
    "a run after the recorded success": (lambda: and_then(("first", 2, START)), Rule.MISRECORDED),
    "a crash that is not recorded": (lambda: changed(the_story(), "crashed", failures=()), Rule.MISRECORDED),
    "an attempt that is recorded twice": (
        lambda: changed(the_story(), "crashed", failures=(failure(1), failure(1))),
        Rule.MISRECORDED,
    ),
    "a failure and a success of one attempt": (
        lambda: changed(the_story(), "first", failures=RAISED),
        Rule.MISRECORDED,
    ),
    "an attempt that was left out": (
        lambda: changed(the_story(), "crashed", attempt=4, failures=(failure(1), failure(3))),
        Rule.MISRECORDED,
    ),
    "a last failure that is not recorded": (
        lambda: replace(changed(the_story(), "never", attempt=2), answers_are_lost=True),
        Rule.MISRECORDED,
    ),
    "a success that did not reach its end": (lambda: without_effects("crashed", END), Rule.MISRECORDED),
    "the success of an earlier attempt": (
        lambda: and_then(("crashed", 3, START), ("crashed", 3, END)),
        Rule.MISRECORDED,
    ),
    "an end that is recorded as an error": (
        lambda: changed(the_story(), "crashed", attempt=3, failures=(failure(1), failure(2, FailureKind.RAISED))),
        Rule.MISRECORDED,
    ),
    "a failure without a reason": (
        lambda: changed(the_story(), "first", state=State.FAILED, failures=RAISED),
        Rule.MISRECORDED,
    ),
    "a success of what always fails": (
        lambda: changed(the_story(), "never", state=State.SUCCEEDED, failures=()),
        Rule.MISRECORDED,
    ),
    "a cancellation without a cause": (lambda: changed(the_story(), "behind", cause=None), Rule.MISRECORDED),
    "a cancellation for one that succeeded": (lambda: changed(the_story(), "behind", cause="first"), Rule.MISRECORDED),
    "a cancelled task that ran": (lambda: and_then(("behind", 1, START)), Rule.MISRECORDED),
    "a chain in the wrong order": (lambda: swapped("first", "second"), Rule.UNORDERED),
    "a chain whose first is run again": (lambda: and_then(("first", 2, START), ("first", 2, END)), Rule.UNORDERED),
    "a chain that was not stored as one": (lambda: changed(the_story(), "second", after=None), Rule.UNORDERED),
    "a task stored behind one of another request": (
        lambda: changed(the_story(), "second", after="crashed"),
        Rule.UNORDERED,
    ),
    "one that ran behind a failure": (
        lambda: changed(changed(the_story(), "first", state=State.FAILED), "second", state=State.SUCCEEDED),
        Rule.UNORDERED,
    ),
    "a worker that was not dead": (lambda: and_then(("crashed", 1, END)), Rule.OVERLAPPING),
    "a server that complains of itself": (
        lambda: replace(
            the_story(), complaints=["CRITICAL: worker: could not claim tasks because of an internal error"]
        ),
        Rule.BROKEN,
    ),
    "a damaged file": (lambda: replace(the_story(), integrity="row 7 missing from index tasks_id"), Rule.CORRUPT),
}


def test_where_answers_are_lost_a_lease_may_go_back_before_anything_began() -> None:
    story = changed(the_story(), "unsure", attempt=2, result="2")
    story = replace(story, effects=[replace(one, attempt=2) if one.task == "unsure" else one for one in story.effects])
    assert {violation.rule for violation in check(story)} == {Rule.MISRECORDED}
    assert check(replace(story, answers_are_lost=True)) == []


@pytest.mark.parametrize("lie", LIES)
def test_the_judge_finds(lie: str) -> None:
    tell, rule = LIES[lie]
    assert rule in {violation.rule for violation in check(tell())}


@pytest.mark.parametrize("part", RULES)
def test_the_judge_misses_a_lie_without(part: Callable[[Evidence], Iterator[Violation]]) -> None:
    others = [other for other in RULES if other is not part]
    found = [{violation.rule for other in others for violation in other(tell())} for tell, _ in LIES.values()]
    assert any(rule not in rules for (_, rule), rules in zip(LIES.values(), found, strict=True))


def test_a_suspect_that_died_three_times_may_fail() -> None:
    crashes = tuple(failure(attempt) for attempt in range(1, 5))
    story = changed(the_story(), "crashed", state=State.FAILED, attempt=4, crashed=3, failures=crashes)
    told = effects(*(("crashed", attempt, START) for attempt in range(1, 5)))
    story = replace(story, effects=[*[one for one in story.effects if one.task != "crashed"], *told])
    assert check(story) == []
    assert [record.id for record in given_up(story.records)] == ["crashed"]


def test_a_suspect_that_died_twice_may_not() -> None:
    story = changed(the_story(), "crashed", state=State.FAILED, crashed=2, failures=(failure(1), failure(2)))
    assert Rule.MISRECORDED in {violation.rule for violation in check(story)}


def test_a_violation_says_what_and_where() -> None:
    assert str(Violation(Rule.LOST, "task 7")) == "lost: task 7"
