"""Which calls a test's application has stored."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from inspect import Parameter
from typing import Any

from afterwards.core.errors import InvalidOption
from afterwards.core.spans import as_span
from afterwards.core.task import Task
from afterwards.tasks.function import TaskFunction
from afterwards.testing.inline import memory

OPTIONS = ("delay", "run_at", "queue", "priority")


def assert_enqueued(function: TaskFunction[Any, Any, Any], /, **arguments: Any) -> Task:
    """Fail unless this test has stored a call of the function with these arguments, whatever became of it since.

    Arguments that are left out may have any value. Beside them the call's options may be asked for: ``delay`` (seconds
    or a timedelta, exact, from when it was stored; 0 for none), ``run_at`` (an aware datetime), ``queue`` and
    ``priority``. Where the function has a parameter of such a name, it is that argument.
    Returns the newest such task. Raises InvalidOption for a name that is neither.
    """
    calls = _calls(function)
    for call in reversed(_matching(calls, _wanted(function, arguments))):
        return call.task
    asked = f" with {_listed(arguments)}" if arguments else ""
    raise AssertionError(f"no call of {function.name}{asked} was stored; its calls:{_lines(calls)}")


def assert_not_enqueued(function: TaskFunction[Any, Any, Any], /, **arguments: Any) -> None:
    """Fail if this test has stored a call that ``assert_enqueued`` would find. Raises InvalidOption as that does."""
    found = _matching(_calls(function), _wanted(function, arguments))
    if found:
        asked = f" with {_listed(arguments)}" if arguments else ""
        raise AssertionError(f"a call of {function.name}{asked} was stored:{_lines(found)}")


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A stored call, as it was asked for."""

    task: Task
    arguments: Mapping[str, Any]  # with those that were left to their defaults
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.task.name}({_listed(self.arguments)}): {_listed(self.options)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call is looked for by."""

    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    def fits(self, call: RecordedCall) -> bool:
        return _within(self.arguments, call.arguments) and _within(self.options, call.options)


def _calls(function: TaskFunction[Any, Any, Any]) -> list[RecordedCall]:
    if not isinstance(function, TaskFunction):
        raise InvalidOption(f"{function!r} is no task function: calls of plain functions are not stored")
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
            f"task {function.name!r} has no argument {name!r}: ask for {', '.join(map(repr, names)) or 'none'}, "
            f"or for {', '.join(map(repr, OPTIONS))}"
        )
    if "delay" in options:
        options["delay"] = as_span(options["delay"], "delay")
    run_at = options.get("run_at")
    if "run_at" in options and (not isinstance(run_at, datetime) or run_at.tzinfo is None):
        raise InvalidOption(f"run_at={run_at!r}: give an aware datetime, as a call of {function.name} is given")
    return Wanted(arguments, options)


def _parameters(function: TaskFunction[Any, Any, Any]) -> list[Parameter]:
    """Those that are filled by calls, and not when the task runs."""
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
