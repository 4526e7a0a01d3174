"""A task function, as a worker needs it."""

from collections.abc import Callable
from typing import Any, Protocol

from afterwards.core.limits import Limit
from afterwards.core.options import RunIn, TaskOptions
from afterwards.core.serialization.arguments import Codec, ResultCodec
from afterwards.core.task import FailedTask, Task
from afterwards.execution.dependency_plan import Plan


class Runnable(Protocol):
    """A task function, as it is run."""

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
    """The names under which their tasks are stored, those of before among them."""

    limits: dict[str, Limit]
    """The limits of the functions that have any, by name."""

    patient: frozenset[str]
    """The names of those whose tasks may be leased some time before they begin."""

    def get(self, name: str) -> Runnable:
        """Raises UnknownFunction."""
        ...


def options_of(function: Runnable, task: Task) -> TaskOptions:
    """The function's options, with those that this call set for itself."""
    return function.settings if task.overrides is None else function.settings.overridden(task.overrides)
