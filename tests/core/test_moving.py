"""Records on their way: as text, and which of them another engine stores."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from afterwards.core import moving
from afterwards.core.claim import Paused
from afterwards.core.limits import Start
from afterwards.core.moving import Arrived, Batch, MovedChunk, MovedTask
from afterwards.core.progress import Progress
from afterwards.core.schedule import StoredSchedule
from afterwards.core.storing import Key, KeyKind, Loaded
from afterwards.core.task import LEASE_ENDED, Failure, FailureKind, State, Task
from afterwards.testing.clock import START

SECOND = timedelta(seconds=1)


def task(**fields: Any) -> Task:
    usual = {"id": "one", "name": "greet", "arguments": "{}", "created_at": START, "state": State.QUEUED}
    return Task(**usual | fields)


def moved(**fields: Any) -> MovedTask:
    return MovedTask(task=task(**fields))


def arrived(*tasks: MovedTask, by_id: dict[str, Task] | None = None, by_key: dict[Key, Task] | None = None) -> Arrived:
    return moving.arrive(tasks, Loaded(by_id=by_id or {}, by_key=by_key or {}), START)


FAILURE = Failure(attempt=1, at=START, worker="w", kind=FailureKind.RAISED, message="a\0b\u2028", traceback="here")

FULL = Batch(
    id="batch",
    to="there",
    paused=Paused(queues=frozenset({"mail"}), names=frozenset({"greet"})),
    schedules=(StoredSchedule(name="greet", expression="every 1:00:00", after=START, last_fire=START, paused=True),),
    starts=(Start(("greet", "*"), START, START + SECOND),),
    chunks=(MovedChunk(file="file", task="one", number=0, content=b"", until=None),),
    tasks=(
        MovedTask(
            task=task(
                state=State.RUNNING,
                retention=timedelta.max,
                lease_until=LEASE_ENDED,
                started_at=START + timedelta(microseconds=1),
                progress=Progress(done=1, total=3),
                failures=(FAILURE,),
                set_aside="why",
            ),
            since=START,
            aliases=("two", "three"),
        ),
        moved(progress=Progress(done=0.5, note="half")),
        moved(),
    ),
    beyond="-7",
)


def test_a_batch_comes_back_from_its_text_as_it_was() -> None:
    back = moving.of_text(moving.to_text(FULL))
    assert back == FULL
    progress = back.tasks[0].task.progress
    assert progress and progress.to_text() == '{"done": 1, "total": 3}'


def test_the_contents_of_chunks_are_not_in_the_text() -> None:
    chunk = replace(FULL.chunks[0], content=b"secret")
    assert moving.of_text(moving.to_text(replace(FULL, chunks=(chunk,)))) == FULL


def test_a_batch_without_records_is_empty() -> None:
    assert Batch(id="a", to="b", beyond="5").is_empty
    for name in ("paused", "schedules", "starts", "chunks", "tasks"):
        assert not replace(Batch(id="a", to="b"), **{name: getattr(FULL, name)}).is_empty


def test_large_tasks_end_a_batch_and_one_is_always_in_it() -> None:
    large = moved(result="x" * moving.MOST_BYTES)
    assert len([*moving.within_bytes([large, large])]) == 1
    assert len([*moving.within_bytes([moved()] * 9)]) == 9


def test_a_task_that_is_stored_already_is_known() -> None:
    assert arrived(moved(), by_id={"one": task()}).known == ["one"]
    assert arrived(moved()).stored == [moved()]


@pytest.mark.parametrize(
    ("state", "kept"), [(State.QUEUED, None), (State.RUNNING, None), (State.SUCCEEDED, "key"), (State.FAILED, "key")]
)
def test_a_taken_unique_key_is_left_out_of_a_task_that_has_not_finished(state: State, kept: str | None) -> None:
    found = arrived(moved(state=state, unique_key="key"), by_key={Key(KeyKind.UNIQUE, "key"): task(id="two")})
    assert found.stored[0].task.unique_key == kept
    assert found.without_keys == ([] if kept else ["one"])


def test_a_taken_idempotency_key_is_always_left_out_and_a_free_one_never() -> None:
    ended = moved(state=State.SUCCEEDED, idempotency_key="key", unique_key="key")
    found = arrived(ended, by_key={Key(KeyKind.IDEMPOTENCY, "key"): task(id="two")})
    assert (found.stored[0].task.idempotency_key, found.stored[0].task.unique_key) == (None, "key")
    assert arrived(ended).stored == [ended]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, State.WAITING),
        (task(id="first", state=State.RUNNING), State.WAITING),
        (task(id="first", state=State.SUCCEEDED), State.QUEUED),
        (task(id="first", state=State.FAILED), State.CANCELLED),
    ],
)
def test_a_waiting_task_follows_a_predecessor_that_is_there(before: Task | None, after: State) -> None:
    found = arrived(moved(state=State.WAITING, after="first"), by_id={"first": before} if before else {})
    assert found.stored[0].task.state is after


def test_a_task_that_is_set_aside_follows_when_it_is_brought_back() -> None:
    aside = moved(state=State.WAITING, after="first", set_aside="why")
    assert arrived(aside, by_id={"first": task(id="first", state=State.FAILED)}).stored == [aside]


def test_the_needed_ids_are_those_of_tasks_and_their_predecessors() -> None:
    assert moving.needed_ids([moved(id="a", after="b"), moved(id="c", after="b"), moved(id="b")]) == ["a", "c", "b"]
