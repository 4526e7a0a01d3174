"""Propagate the trace and the context variables of a call to its attempts."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from afterwards import telemetry
from afterwards.core.call_context import written_context
from afterwards.core.errors import RefusedContext, UnstorableContext
from afterwards.core.serialization.sent import may_be_sent
from afterwards.core.task import Task


def captured(variables: Sequence[ContextVar[Any]]) -> str | None:
    """Return the trace and the variables of the caller as JSON; None for nothing. Raises UnstorableContext."""
    trace = telemetry.trace_carrier()
    if not trace and not variables:  # the usual case
        return None
    values = {variable.name: _value(variable) for variable in variables if variable.get(_UNSET) is not _UNSET}
    return written_context(trace, values)


@contextmanager
def restored(task: Task, variables: Sequence[ContextVar[Any]]) -> Iterator[None]:
    """Run an attempt with the trace and the variables of its call. Variables no longer listed are left out."""
    context = json.loads(task.context or "{}")
    values = context.get("variables", {})
    before = [(variable, variable.set(values[variable.name])) for variable in variables if variable.name in values]
    try:
        with telemetry.attempt_span(task, context.get("trace", {})):
            yield
    finally:
        for variable, token in before:
            variable.reset(token)


_UNSET = object()


def _value(variable: ContextVar[Any]) -> Any:
    value = variable.get()
    try:
        if json.loads(json.dumps(value)) == value:
            return value
    except (TypeError, ValueError, RecursionError):
        pass
    raise (RefusedContext if may_be_sent(value) else UnstorableContext)(variable.name, type(value).__name__)
