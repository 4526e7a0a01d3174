"""The interface of a task function that a worker uses."""

from collections.abc import Callable
from typing import Any, Protocol

from afterwards.core.keywords import RunIn
from afterwards.core.limits import Limit
from afterwards.core.options import TaskOptions
from afterwards.core.serialization.arguments import Codec, ResultCodec
from afterwards.core.task import FailedTask, Task
from afterwards.execution.dependency_plan import Plan


class Runnable(Protocol):
    """A task function that can be run."""

    name: str
    function: Callable[..., Any]
    settings: TaskOptions
    on_failure: Callable[[FailedTask], Any] | None
    run_in: RunIn
    is_async: bool

    @property
    def plan(self) -> Plan: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def results(self) -> ResultCodec: ...


class Functions(Protocol):
    """The task functions that this process knows."""

    names: frozenset[str]
    """The names under which their tasks are stored, including earlier names."""

    limits: dict[str, Limit]
    """The limits of functions that have limits, by name."""

    claimed_ahead: frozenset[str]
    """The names of functions whose tasks may be leased some time before they begin."""

    def get(self, name: str) -> Runnable:
        """Return the function of this name. Raises UnknownFunction."""
        ...


def options_of(function: Runnable, task: Task) -> TaskOptions:
    """Return the function's options, overridden by those of the call."""
    return function.settings if task.overrides is None else function.settings.overridden(task.overrides)
