"""Tracebacks, JSON values and histories, as the page of a task divides them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from afterwards.core.record import TaskRecord
from afterwards.core.task import Failure, FailureKind, LogLine, State, Task
from afterwards.dashboard.pages.json_tree import DEEPEST, MOST_NODES, Node, tree
from afterwards.dashboard.pages.timeline import timeline
from afterwards.dashboard.pages.traceback_parts import Kind, traceback_parts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/srv/app/flow.py", line 3, in run
  |     async with asyncio.TaskGroup() as group:
  |   File "/usr/lib/python3.11/asyncio/taskgroups.py", line 145, in __aexit__
  |     raise me from None
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/app/flow.py", line 9, in step
    |     raise ValueError("no")
    | ValueError: no
"""


def test_frames_of_libraries_are_apart_also_in_a_group() -> None:
    parts = traceback_parts(GROUP)
    assert [part.kind for part in parts] == [Kind.TEXT, Kind.OWN, Kind.LIBRARY, Kind.TEXT, Kind.OWN, Kind.TEXT]
    assert [part.frames for part in parts] == [0, 1, 1, 0, 1, 0]
    assert "taskgroups.py" in parts[2].text


@given(st.text())
def test_no_line_of_a_traceback_is_lost(text: str) -> None:
    assert "\n".join(part.text for part in traceback_parts(text)) == text.rstrip("\n")


def _nodes(node: Node) -> int:
    return 1 + sum(map(_nodes, node.children))


def test_a_large_value_is_cut_and_says_how_much_is_left_out() -> None:
    found = tree([list(range(600)), list(range(600))])
    assert _nodes(found) <= MOST_NODES
    assert [child.size for child in found.children] == [600, 600]
    assert found.children[1].left_out > 0


def test_a_deep_value_ends_in_text() -> None:
    value: Any = 1
    for _ in range(DEEPEST + 30):
        value = [value]
    node = tree(value)
    for _ in range(DEEPEST):
        [node] = node.children
    assert node.kind == "text" or node.text.startswith("[[[")


def test_numbers_and_words_are_as_stored() -> None:
    found = tree({"n": 90071992547409931234, "f": 0.1, "t": True, "z": None, "s": "a\nb", "e": {}})
    assert [(child.kind, child.text) for child in found.children] == [
        ("number", "90071992547409931234"),
        ("number", "0.1"),
        ("word", "true"),
        ("word", "null"),
        ("text", "a\nb"),
        ("object", ""),
    ]


def _record(**fields: Any) -> TaskRecord:
    return TaskRecord.of(Task(id="1", name="greet", arguments="{}", created_at=NOW, **fields))


def _failure(attempt: int) -> Failure:
    return Failure(attempt=attempt, at=NOW, worker="w", kind=FailureKind.RAISED, message="no")


def test_failures_that_are_not_kept_leave_a_gap() -> None:
    failures = tuple(map(_failure, (1, 2, 90, 91)))
    events = timeline(_record(state=State.SCHEDULED, attempt=91, failed=91, failures=failures, failures_left_out=87))
    assert [event.kind for event in events] == ["added", "raised", "raised", "gap", "raised", "raised", "next"]
    assert events[3].title.startswith("87 more failures")
    assert events[-1].title == "Will be tried again"


def test_a_snoozed_attempt_is_told_by_its_log() -> None:
    line = LogLine(attempt=1, at=NOW, level="INFO", logger="app", message="not yet")
    events = timeline(_record(state=State.RUNNING, attempt=2, started_at=NOW, worker="w", logs=(line,)))
    assert [(event.title, len(event.logs)) for event in events[1:]] == [
        ("Attempt 1 ended without a failure", 1),
        ("Attempt 2 started", 0),
    ]


def test_the_end_says_how_long_the_last_attempt_took() -> None:
    done = NOW + timedelta(seconds=90)
    [*_, end] = timeline(_record(state=State.SUCCEEDED, attempt=1, started_at=NOW, finished_at=done, worker="w"))
    assert (end.title, end.lasted) == ("Succeeded", timedelta(seconds=90))
