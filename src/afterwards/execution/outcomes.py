"""Map an exception, raised by the user's function or by us, to the outcome of an attempt."""

from afterwards.core.control import Cancel, RetryAfter, Snooze
from afterwards.core.errors import FileMissing
from afterwards.core.settling import Cancelled, Outcome, Raised, Snoozed
from afterwards.core.spans import as_span
from afterwards.core.task import FailureKind
from afterwards.core.text import text_of
from afterwards.execution.threads import StopIterationRaised
from afterwards.execution.timeouts import TimedOut
from afterwards.execution.tracebacks import users_traceback


def outcome_of_attempt(error: BaseException) -> Outcome:
    """Return the outcome of an attempt that ended with this exception, whoever raised it."""
    if issubclass(type(error), FileMissing):
        return Raised(error=error, kind=FailureKind.REFUSED)
    if issubclass(type(error), TimedOut):
        timed_out = TimeoutError(*error.args).with_traceback(error.__traceback__)
        cause = timed_out if error.__cause__ is None else error.__cause__
        return Raised(error=timed_out, kind=FailureKind.TIMED_OUT, traceback=users_traceback(cause))
    if issubclass(type(error), StopIterationRaised) and error.__cause__ is not None:
        return outcome_of_function(error.__cause__)
    return outcome_of_function(error)


def outcome_of_function(error: BaseException) -> Outcome:
    """Return the outcome of a function that raised this. Never raises: only the exception's class is examined."""
    kind, delay = type(error), None  # not isinstance(), which reads the exception's `__class__`
    try:
        if issubclass(kind, Snooze):
            return Snoozed(as_span(error.delay))  # type: ignore[attr-defined]  # by its class
        if issubclass(kind, Cancel):
            return Cancelled(text_of(error.reason))  # type: ignore[attr-defined]  # by its class
        if issubclass(kind, RetryAfter):
            delay = as_span(error.delay)  # type: ignore[attr-defined]  # by its class
    except BaseException as trouble:  # its attributes may have been set to anything
        trouble.__context__ = None
        return Raised(error=trouble, traceback=users_traceback(error))
    return Raised(error=error, delay=delay, traceback=users_traceback(error))
