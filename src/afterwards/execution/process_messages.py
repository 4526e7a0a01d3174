"""The messages between a worker and its processes: JSON, one object at a time."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from afterwards.core.raised_elsewhere import RaisedElsewhere
from afterwards.core.retry import Retry
from afterwards.core.settling import Cancelled, Outcome, Raised, SetAside, Snoozed, Succeeded
from afterwards.core.task import FailureKind, LogLine, State, Task
from afterwards.core.text import said_by, shortened, text_of, type_name
from afterwards.execution.function import Runnable

Message = dict[str, Any]


class Pipe(Protocol):
    """One end of a ``multiprocessing`` pipe. The module is not imported for its type alone."""

    def send_bytes(self, buf: bytes, /) -> None: ...
    def recv_bytes(self) -> bytes: ...
    def poll(self, timeout: float | None, /) -> bool: ...
    def close(self) -> None: ...


def packed(message: Message) -> bytes:
    return json.dumps(message).encode()


def unpacked(raw: bytes) -> Message:
    message: Message = json.loads(raw)
    return message


def call(function: Runnable, task: Task) -> Message:
    """To the process: run this call. The names are those of the registry, never those of the row."""
    return {
        "call": function.name,
        "module": function.function.__module__,
        "id": task.id,
        "name": task.name,
        "arguments": task.arguments,
        "overrides": task.overrides,
        "attempt": task.attempt,
        "enqueued_at": task.created_at.isoformat(),
        "started_at": task.started_at and task.started_at.isoformat(),
    }


def stop(task: Task, reason: str) -> Message:
    """To the process: make the next check end this attempt, if it still runs."""
    return {"stop": reason, "id": task.id, "attempt": task.attempt}


def task_of(call: Message) -> Task:
    """The part of the record that the function may read."""
    return Task(
        id=call["id"],
        name=call["name"],
        arguments=call["arguments"],
        overrides=call["overrides"],
        attempt=call["attempt"],
        created_at=datetime.fromisoformat(call["enqueued_at"]),
        started_at=call["started_at"] and datetime.fromisoformat(call["started_at"]),
        state=State.RUNNING,
    )


def ended(outcome: Outcome, retry: Retry) -> Message:
    """From the process: the outcome. Exceptions become text, so decisions that need the object are made here."""
    match outcome:
        case Succeeded(result):
            return {"ended": "succeeded", "result": result}
        case Snoozed(delay):
            return {"ended": "snoozed", "delay": delay.total_seconds()}
        case Raised():
            return _raised(outcome, retry)
        case SetAside(reason):
            return {"ended": "set aside", "reason": reason}
        case _:
            return {"ended": "cancelled", "reason": outcome.reason}


def outcome(message: Message) -> Outcome:
    """Return the outcome that `ended` wrote."""
    match message["ended"]:
        case "succeeded":
            return Succeeded(message["result"])
        case "snoozed":
            return Snoozed(timedelta(seconds=message["delay"]))
        case "raised":
            return _raised_there(message)
        case "set aside":
            return SetAside(message["reason"])
        case _:
            return Cancelled(message["reason"])


def logged(lines: Iterable[LogLine]) -> Message:
    """From the process: all lines that the attempt has logged, as part of any message."""
    return {"logs": [[one.at.isoformat(), one.level, one.logger, one.message] for one in lines]}


def lines_of(message: Message, attempt: int) -> list[LogLine] | None:
    """Return the lines that `logged` wrote; None if the message has none."""
    if "logs" not in message:
        return None
    return [
        LogLine(attempt=attempt, at=datetime.fromisoformat(at), level=level, logger=logger, message=text)
        for at, level, logger, text in message["logs"]
    ]


def _raised(raised: Raised, retry: Retry) -> Message:
    return {
        "ended": "raised",
        "type": type_name(raised.error),
        "module": text_of(type(raised.error).__module__),
        "text": said_by(raised.error),
        "traceback": shortened(raised.traceback),
        "kind": raised.kind,
        "retried": retry.covers(raised.error),
        "delay": None if raised.delay is None else raised.delay.total_seconds(),
    }


def _raised_there(message: Message) -> Raised:
    error = RaisedElsewhere.named(
        message["type"], message["text"], module=message["module"], retried=message["retried"]
    )
    if message["traceback"]:
        error.add_note(message["traceback"])  # for the log, which shows only this one
    return Raised(
        error=error,
        kind=FailureKind(message["kind"]),
        traceback=message["traceback"],
        delay=None if message["delay"] is None else timedelta(seconds=message["delay"]),
    )
