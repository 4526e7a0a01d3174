"""``assert_enqueued`` and ``assert_not_enqueued``: check which calls a test has stored."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from inspect import Parameter
from typing import Any

from afterwards.core.errors import InvalidOption
from afterwards.core.record import TaskRecord
from afterwards.core.spans import as_span
from afterwards.core.task import Task
from afterwards.tasks.function import TaskFunction
from afterwards.testing.inline import memory

OPTIONS = ("delay", "run_at", "queue", "priority")


def assert_enqueued(function: TaskFunction[Any, Any, Any], /, **arguments: Any) -> TaskRecord:
    """Return the record of the newest task of the function with these arguments. Raises AssertionError without one.

    The state of the task does not matter. Omitted arguments match any value. Options of the call can be checked, too:
    ``delay`` (seconds or a timedelta after it was stored, exact; 0 for none), ``run_at`` (an aware datetime), ``queue``
    and ``priority``. If the function has a parameter with such a name, the argument is meant.
    Raises InvalidOption for an unknown name.
    """
    calls = _calls(function)
    for call in reversed(_matching(calls, _wanted(function, arguments))):
        return TaskRecord.of(call.task)
    asked = f" with {_listed(arguments)}" if arguments else ""
    raise AssertionError(f"no call of {function.name}{asked} was stored; its calls:{_lines(calls)}")


def assert_not_enqueued(function: TaskFunction[Any, Any, Any], /, **arguments: Any) -> None:
    """Raise AssertionError if ``assert_enqueued`` would find a task. Raises InvalidOption for an unknown name."""
    found = _matching(_calls(function), _wanted(function, arguments))
    if found:
        asked = f" with {_listed(arguments)}" if arguments else ""
        raise AssertionError(f"a call of {function.name}{asked} was stored:{_lines(found)}")


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A stored call with its requested options."""

    task: Task
    arguments: Mapping[str, Any]  # including defaults
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.task.name}({_listed(self.arguments)}): {_listed(self.options)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The arguments and options that a call must have."""

    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    def fits(self, call: RecordedCall) -> bool:
        return _within(self.arguments, call.arguments) and _within(self.options, call.options)


def _calls(function: TaskFunction[Any, Any, Any]) -> list[RecordedCall]:
    if not isinstance(function, TaskFunction):
        raise InvalidOption(f"{function!r} is not a task function: calls of plain functions are not stored")
    defaults = {
        parameter.name: parameter.default
        for parameter in _parameters(function)
        if parameter.default is not Parameter.empty
    }
    return [
        RecordedCall(task, defaults | function.codec.load(task.arguments), _options(task, asked_for))
        for task, asked_for in memory().asked_for
        if task.name == function.name
    ]


def _options(task: Task, asked_for: datetime) -> dict[str, Any]:
    delay = max(timedelta(), asked_for - task.created_at)
    return {"delay": delay, "run_at": asked_for, "queue": task.queue, "priority": task.priority}


def _wanted(function: TaskFunction[Any, Any, Any], given: Mapping[str, Any]) -> Wanted:
    names = [parameter.name for parameter in _parameters(function)]
    options = {name: value for name, value in given.items() if name in OPTIONS and name not in names}
    arguments = {name: value for name, value in given.items() if name not in options}
    for name in arguments.keys() - set(names):
        raise InvalidOption(
            f"task {function.name!r} has no argument {name!r}: give {', '.join(map(repr, names)) or 'none'}, "
            f"or {', '.join(map(repr, OPTIONS))}"
        )
    if "delay" in options:
        options["delay"] = as_span(options["delay"], "delay")
    run_at = options.get("run_at")
    if "run_at" in options and (not isinstance(run_at, datetime) or run_at.tzinfo is None):
        raise InvalidOption(f"run_at={run_at!r}: give an aware datetime, as in a call of {function.name}")
    return Wanted(arguments, options)


def _parameters(function: TaskFunction[Any, Any, Any]) -> list[Parameter]:
    """Return the parameters that callers fill, without those of dependencies."""
    parameters = inspect.signature(function.function).parameters.values()
    return [parameter for parameter in parameters if parameter.name not in function.plan.injected]


def _matching(calls: Iterable[RecordedCall], wanted: Wanted) -> list[RecordedCall]:
    return [call for call in calls if wanted.fits(call)]


def _within(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(name in given and given[name] == value for name, value in wanted.items())


def _lines(calls: Iterable[RecordedCall]) -> str:
    return "".join(f"\n  {call}" for call in calls) or " none"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    match value:
        case timedelta():
            return f"{value.total_seconds():g}"
        case datetime():
            return value.isoformat()
        case _:
            return repr(value)
