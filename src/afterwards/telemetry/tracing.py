"""The traces of OpenTelemetry that go on in attempts."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from afterwards.core.task import Task
from afterwards.core.text import said_by, type_name
from afterwards.telemetry.writing import described, once


def trace_carrier() -> dict[str, str]:
    """The OpenTelemetry trace that the caller belongs to, as headers; nothing where nobody traces. Never raises."""
    context = sys.modules.get("opentelemetry.context")  # who traces has loaded it
    if context is None or not context.get_current():  # as most often
        return {}
    try:
        return _carrier()
    except Exception as error:  # a propagator of the user's
        not_traced(error)
        return {}


def _carrier() -> dict[str, str]:
    from opentelemetry import propagate, trace  # loaded where a trace is to go on, and nowhere else

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


@contextmanager
def attempt_span(task: Task, carrier: dict[str, str]) -> Iterator[None]:
    """A span round one attempt, below the one that was current when its task was added.

    Where none can be made there is none: what a sampler, a processor or an exporter raises stays out of the attempt.
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


def attempt_failed(error: BaseException) -> None:
    """Mark the span of an attempt. Never raises."""
    from opentelemetry import trace  # as above

    try:
        span = trace.get_current_span()
        span.set_status(trace.StatusCode.ERROR, said_by(error))
        span.record_exception(error)
    except Exception as trouble:  # the user's code, or an exception that cannot be formatted
        not_traced(trouble)


def not_traced(error: BaseException) -> None:
    once(f"trace {type_name(error)}", logging.WARNING, f"a trace could not be kept: {described(error)}")
