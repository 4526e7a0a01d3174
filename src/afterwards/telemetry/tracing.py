"""OpenTelemetry's spans, through the global API: one in which tasks are stored, and one for each attempt."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from afterwards.core.call_context import read_context, with_trace
from afterwards.core.redaction import redactor_of
from afterwards.core.task import NewTask, Task
from afterwards.core.text import frames_of, said_by, shortened, type_name, written
from afterwards.telemetry import conventions
from afterwards.telemetry.failing import not_traced, recording
from afterwards.telemetry.metering import count_sent
from afterwards.telemetry.providers import has_meter, has_tracer
from afterwards.telemetry.writing import shows_secret


def trace_carrier() -> dict[str, str]:
    """Return the caller's trace as headers, an empty dict if nothing is traced. Never raises."""
    context = sys.modules.get("opentelemetry.context")  # loaded by any application that traces
    if context is None or not context.get_current():
        return {}
    try:
        return _carrier()
    except BaseException as error:  # a propagator of the user's may raise anything
        not_traced(error)
        return {}


def _carrier() -> dict[str, str]:
    from opentelemetry import propagate, trace  # imported only when there is a trace

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


def sending(tasks: Sequence[NewTask]) -> AbstractContextManager[Sequence[NewTask]]:
    """Store tasks inside the block, in a span to which their attempts are linked. Yields the tasks to be stored.

    Errors of a sampler, processor or exporter are logged and do not reach the caller.
    """
    if not (has_tracer() or has_meter()) or not tasks or tasks[0].failure is not None:  # a plain function's failure
        return nullcontext(tasks)
    return _sending(tasks)


@contextmanager
def _sending(tasks: Sequence[NewTask]) -> Iterator[Sequence[NewTask]]:
    span, sent = ExitStack(), tasks
    if has_tracer():
        with recording():
            span.enter_context(_send_span(tasks))
            carrier = _carrier()
            sent = [replace(task, context=with_trace(task.context, carrier)) for task in tasks]
    try:
        yield sent
    except BaseException as error:
        _name_error(error)
        count_sent(tasks, error)
        raise
    else:
        count_sent(tasks, None)
    finally:
        _end(span)


def _send_span(tasks: Sequence[NewTask]) -> AbstractContextManager[Any]:
    """Return a span below the one in which the first task was added: there, its request may be over already."""
    from opentelemetry import propagate, trace  # as above

    attributes = conventions.sending_of(tasks)
    queue = attributes.get(conventions.DESTINATION)
    carrier = read_context(tasks[0].context)["trace"]
    return trace.get_tracer(conventions.SCOPE).start_as_current_span(
        "send" if queue is None else f"send {queue}",
        context=propagate.extract(carrier) if carrier else None,
        kind=trace.SpanKind.PRODUCER,
        attributes=attributes,
    )


@contextmanager
def attempt_span(task: Task, carrier: dict[str, str]) -> Iterator[None]:
    """Run the block in a span that is linked to the one in which the task was stored, and is below it.

    Errors of a sampler, processor or exporter are logged and do not reach the attempt.
    """
    if not carrier and not has_tracer():
        yield
        return
    span = ExitStack()
    with recording():
        span.enter_context(_attempt_span(task, carrier))
    try:
        yield
    finally:
        _end(span)


def _attempt_span(task: Task, carrier: dict[str, str]) -> AbstractContextManager[Any]:
    """Return the span. The conventions want the link, and allow the parent: so one trace shows request and task."""
    from opentelemetry import context, propagate, trace  # as above

    around = propagate.extract(carrier) if carrier else context.Context()  # not what the worker was started in
    sent = trace.get_current_span(around).get_span_context()
    return trace.get_tracer(conventions.SCOPE).start_as_current_span(
        f"process {task.queue}",
        context=around,
        kind=trace.SpanKind.CONSUMER,
        attributes=conventions.attempt_of(task),
        links=[trace.Link(sent)] if sent.is_valid else [],
    )


def attempt_failed(task: Task, error: BaseException) -> None:
    """Record an exception in the current span, without the task's secrets, and set its status. Never raises."""
    from opentelemetry import trace  # as above

    with recording():
        span, hide = trace.get_current_span(), redactor_of(task).text
        message = hide(said_by(error))
        span.set_attribute(conventions.ERROR_TYPE, conventions.error_type(error))
        span.set_status(trace.StatusCode.ERROR, message)
        if shows_secret(error, hide):
            stack = hide(shortened(written(error, frames_of(error))))
            fields = {"exception.type": type_name(error), "exception.message": message}
            span.add_event("exception", {**fields, "exception.stacktrace": stack})
        else:
            span.record_exception(error)


def _name_error(error: BaseException) -> None:
    if has_tracer():
        from opentelemetry import trace  # as above

        with recording():
            trace.get_current_span().set_attribute(conventions.ERROR_TYPE, conventions.error_type(error))


def _end(span: ExitStack) -> None:
    """End a span, with the exception that is being handled, if any."""
    with recording():
        span.__exit__(*sys.exc_info())
