"""OpenTelemetry: propagate the caller's trace to attempts, and make a span for each attempt."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from afterwards.core.redaction import redactor_of
from afterwards.core.task import Task
from afterwards.core.text import frames_of, said_by, shortened, type_name, written
from afterwards.telemetry.writing import described, once, shows_secret


def trace_carrier() -> dict[str, str]:
    """Return the caller's trace as headers, an empty dict if nothing is traced. Never raises."""
    context = sys.modules.get("opentelemetry.context")  # loaded by any application that traces
    if context is None or not context.get_current():
        return {}
    try:
        return _carrier()
    except Exception as error:  # a propagator of the user's
        not_traced(error)
        return {}


def _carrier() -> dict[str, str]:
    from opentelemetry import propagate, trace  # imported only when there is a trace

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


@contextmanager
def attempt_span(task: Task, carrier: dict[str, str]) -> Iterator[None]:
    """Run the block in a span whose parent is the span in which the task was added.

    Errors of a sampler, processor or exporter are logged and do not reach the attempt.
    """
    if not carrier:
        yield
        return
    span = ExitStack()
    try:
        span.enter_context(_span(task, carrier))
    except Exception as error:  # the user's code
        not_traced(error)
    try:
        yield
    finally:
        try:
            span.__exit__(*sys.exc_info())
        except Exception as error:  # as above
            not_traced(error)


def _span(task: Task, carrier: dict[str, str]) -> AbstractContextManager[Any]:
    from opentelemetry import propagate, trace  # as above

    attributes: dict[str, str | int] = {
        "messaging.system": "afterwards",
        "messaging.destination.name": task.queue,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": task.id,
        "afterwards.task.name": task.name,
        "afterwards.task.attempt": task.attempt,
    }
    return trace.get_tracer("afterwards").start_as_current_span(
        f"process {task.queue}",
        context=propagate.extract(carrier),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    )


def attempt_failed(task: Task, error: BaseException) -> None:
    """Record an exception in the current span, without the task's secrets, and set its status. Never raises."""
    from opentelemetry import trace  # as above

    try:
        span, hide = trace.get_current_span(), redactor_of(task).text
        message = hide(said_by(error))
        span.set_status(trace.StatusCode.ERROR, message)
        if shows_secret(error, hide):
            stack = hide(shortened(written(error, frames_of(error))))
            fields = {"exception.type": type_name(error), "exception.message": message}
            span.add_event("exception", {**fields, "exception.stacktrace": stack})
        else:
            span.record_exception(error)
    except Exception as trouble:  # the user's code, or an exception that cannot be formatted
        not_traced(trouble)


def not_traced(error: BaseException) -> None:
    once(f"trace {type_name(error)}", logging.WARNING, f"a trace could not be recorded: {described(error)}")
