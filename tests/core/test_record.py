"""``TaskRecord``: a task as people see it, and as JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from fastapi.encoders import jsonable_encoder
from pydantic import TypeAdapter

from afterwards import Progress, TaskRecord
from afterwards.core.task import Failure, FailureKind, LogLine, State, Task

NOW = datetime(2026, 1, 31, 12, 30, 15, 250_000, tzinfo=UTC)
CANARY = "Kanarienvogel-7f3"


def a_task(**fields: Any) -> Task:
    made: dict[str, Any] = {"id": "7f3", "name": "send", "arguments": "{}", "created_at": NOW, "state": State.FAILED}
    return Task(**made | fields)


def failure(message: str) -> Failure:
    return Failure(
        attempt=1,
        at=NOW,
        worker="w",
        kind=FailureKind.RAISED,
        type="ValueError",
        message=message,
        traceback=f"! {message}",
    )


def secretive() -> Task:
    return a_task(
        arguments=json.dumps({"key": CANARY, "user": {"password": "hunter22", "name": "Ann"}}),
        secrets=("key",),
        result=json.dumps({"echo": CANARY}),
        reason=f"because of {CANARY}",
        cancel_requested=f"stop {CANARY}",
        set_aside=f"unfit {CANARY}",
        unique_key=f"send/{CANARY}",
        idempotency_key=f"send/{CANARY}",
        origin=f"POST /{CANARY}",
        progress=Progress(description=CANARY, note=f"with {CANARY}", unit=CANARY),
        failures=(failure(f"bad key {CANARY} of hunter22"),),
        logs=(LogLine(attempt=1, at=NOW, level="INFO", logger="shop", message=f"using {CANARY}"),),
    )


def test_arguments_and_result_are_values_without_any_loss() -> None:
    record = TaskRecord.of(
        a_task(arguments='{"n": 123456789012345678901234567890, "x": 0.1, "d": "1.10"}', result="[null, true]")
    )
    assert record.arguments == {"n": 123456789012345678901234567890, "x": 0.1, "d": "1.10"}
    assert record.result == [None, True]
    assert json.loads(json.dumps(record.as_json()))["arguments"] == record.arguments


def test_a_record_has_no_field_of_engines_alone() -> None:
    record = TaskRecord.of(a_task())
    for name in ("suspect", "limit_key", "lease_until", "losses", "crashed", "overrides", "context"):
        assert not hasattr(record, name)


def test_a_damaged_record_is_shown_as_far_as_it_can_be_read() -> None:
    record = TaskRecord.of(a_task(arguments='{"half', result="[", context="5", unreadable="its arguments are damaged"))
    assert (record.arguments, record.result, record.trace) == ({}, None, None)
    assert record.unreadable == "its arguments are damaged"


def test_a_record_shows_its_secrets_only_to_the_application() -> None:
    record = TaskRecord.of(secretive())
    assert record.arguments["key"] == CANARY
    assert CANARY in record.failures[0].traceback
    assert record.redacted() == TaskRecord.of(secretive(), shown=True)
    assert record.secrets == ("key",)


def test_shown_hides_arguments_by_parameter_and_texts_everywhere() -> None:
    shown = TaskRecord.of(secretive(), shown=True)
    assert shown.arguments == {"key": "[hidden]", "user": {"password": "[hidden]", "name": "Ann"}}
    assert shown.result == {"echo": "[hidden]"}
    assert shown.failures[0].message == "bad key [hidden] of [hidden]"
    assert shown.failures[0].traceback == "! bad key [hidden] of [hidden]"
    assert shown.logs[0].message == "using [hidden]"
    assert shown.progress == Progress(description="[hidden]", note="with [hidden]", unit="[hidden]")
    assert shown.reason == "because of [hidden]"


def test_nothing_that_a_record_is_written_as_shows_a_secret() -> None:
    for record in (TaskRecord.of(secretive()), TaskRecord.of(secretive(), shown=True)):
        said = [json.dumps(record.as_json(), allow_nan=False), repr(record), f"{record}", record.model_dump_json()]
        said += [str(record.model_dump()), json.dumps(jsonable_encoder({"list": [record]}))]
        for text in said:
            assert "[hidden]" in text
            assert CANARY not in text
            assert "hunter22" not in text


def test_a_record_is_typed_where_it_is_an_answer() -> None:
    described = TypeAdapter(list[TaskRecord]).json_schema(mode="serialization")["$defs"]["TaskRecord"]["properties"]
    assert described.keys() == TaskRecord.of(a_task()).as_json().keys()
    assert described["created_at"]["format"] == "date-time"


def test_json_has_plain_values_and_instants_in_utc() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    said = TaskRecord.of(a_task(run_at=east, progress=Progress(done=2, total=4))).as_json()
    assert said["state"] == "failed"
    assert said["created_at"] == said["run_at"] == "2026-01-31T12:30:15.250000Z"
    assert json.dumps(said["progress"]) == '{"done": 2, "total": 4, "description": "", "unit": "", "note": ""}'
    assert "secrets" not in said
    [one] = TaskRecord.of(a_task(failures=(failure("no luck"),))).as_json()["failures"]
    assert one == {
        "attempt": 1,
        "at": "2026-01-31T12:30:15.250000Z",
        "worker": "w",
        "kind": "raised",
        "type": "ValueError",
        "message": "no luck",
        "traceback": "! no luck",
    }


def test_the_trace_is_its_id() -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = json.dumps({"trace": {"traceparent": header}, "variables": {}})
    assert TaskRecord.of(a_task(context=context)).trace == "0af7651916cd43dd8448eb211c80319c"
    for other in (None, "{}", '{"trace": {"b3": "1"}}', '{"trace": {"traceparent": "?"}}', '{"trace": 5}'):
        assert TaskRecord.of(a_task(context=other)).trace is None


def test_a_task_that_waits_for_a_retry_says_so() -> None:
    assert TaskRecord.of(a_task(state=State.SCHEDULED, failed=1)).retrying
    assert not TaskRecord.of(a_task(state=State.SCHEDULED)).retrying
