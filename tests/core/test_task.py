"""The record of a task."""

import doctest
import importlib
import uuid
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import pytest

from afterwards.core.task import (
    FailedTask,
    Failure,
    FailureKind,
    Lease,
    State,
    Task,
    task_id,
)
from afterwards.core.text import TEXT_LIMIT, said_by, shortened

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODULES = ["serialization.arguments", "errors", "lifecycle", "options", "retry", "task"]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_documentation_are_right(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"afterwards.core.{module}")).failed == 0


def make(**fields: object) -> Task:
    return Task(**{"id": "1", "name": "greet", "arguments": "{}", "created_at": NOW, "state": State.QUEUED} | fields)  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("state", State)
def test_three_states_are_final(state: State) -> None:
    assert state.finished == (state in {State.SUCCEEDED, State.FAILED, State.CANCELLED})


def test_a_lease_names_the_attempt() -> None:
    assert make(attempt=3).lease == Lease("1", 3)


@pytest.mark.parametrize(
    ("state", "failed", "retrying"),
    [(State.SCHEDULED, 1, True), (State.SCHEDULED, 0, False), (State.QUEUED, 1, False)],
)
def test_retrying_is_scheduled_with_failures(state: State, failed: int, retrying: bool) -> None:
    assert make(state=state, failed=failed).retrying is retrying


def test_a_record_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        make().state = State.RUNNING  # type: ignore[misc]  # that is the test


def test_what_is_told_of_a_failure_is_the_task_and_its_last_attempt() -> None:
    failure = Failure(
        attempt=2, at=NOW, worker="w", kind=FailureKind.TIMED_OUT, type="E", message="no", traceback="Traceback"
    )
    assert FailedTask.of(make(attempt=2), failure) == FailedTask(
        id="1", name="greet", attempt=2, kind=FailureKind.TIMED_OUT, type="E", message="no", traceback="Traceback"
    )


def test_an_id_is_a_uuid_of_version_7() -> None:
    id = uuid.UUID(task_id(NOW, b"\xff" * 10))
    assert (id.version, id.variant, str(id)) == (7, uuid.RFC_4122, task_id(NOW, b"\xff" * 10))


def test_an_id_keeps_its_randomness() -> None:
    ids = {task_id(NOW, bytes([byte]) + bytes(8) + bytes([other])) for byte in range(0, 64, 4) for other in range(16)}
    assert len(ids) == 256


def test_later_ids_sort_after_earlier_ones() -> None:
    earlier = task_id(NOW, b"\xff" * 10)
    assert earlier < task_id(NOW + timedelta(milliseconds=1), bytes(10))


@pytest.mark.parametrize("text", ["", "short", "é" * (TEXT_LIMIT // 2), "x" * TEXT_LIMIT])
def test_a_text_that_fits_is_kept(text: str) -> None:
    assert shortened(text) == text


@pytest.mark.parametrize("character", ["x", "é", "漢", "🦉", "\ud800"])
def test_a_long_text_keeps_its_beginning_and_its_end(character: str) -> None:
    short = shortened("begin" + character * TEXT_LIMIT + "end")
    assert short.startswith("begin") and short.endswith("end") and "[...]" in short
    assert TEXT_LIMIT - 20 < len(short.encode()) <= TEXT_LIMIT


def test_what_no_store_could_keep_is_replaced() -> None:
    assert shortened("a\ud800b") == "a?b"


def test_the_text_of_an_exception_that_fails_to_give_one_is_no_failure() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert said_by(ValueError("text")) == "text"
    assert said_by(Silent()) == "(str() raised)"
