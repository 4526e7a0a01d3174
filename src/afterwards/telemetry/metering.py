"""OpenTelemetry's metrics, through the global API: nothing is measured where the application has no meter provider."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from afterwards.core.settling import Outcome, Raised
from afterwards.core.task import NewTask, Task
from afterwards.telemetry import conventions
from afterwards.telemetry.conventions import Attributes
from afterwards.telemetry.failing import recording
from afterwards.telemetry.providers import has_meter

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""The bounds of the buckets of durations. The conventions' bounds end at ten seconds, and tasks take longer."""


def count_sent(tasks: Sequence[NewTask], error: BaseException | None) -> None:
    """Count tasks that were stored, or that could not be stored because of an error. Never raises."""
    if not has_meter():
        return
    with recording():
        for (queue, name), count in Counter((task.queue, task.name) for task in tasks).items():
            _instruments().sent.add(count, _about("send", queue, name, error))


def count_attempt(task: Task, outcome: Outcome, seconds: float) -> None:
    """Count an attempt that has ended, and its duration. Never raises."""
    if not has_meter():
        return
    with recording():
        error = outcome.error if isinstance(outcome, Raised) else None
        about = _about("process", task.queue, task.name, error)
        _instruments().consumed.add(1, about)
        _instruments().duration.record(seconds, about)


def count_refused(task: Task) -> None:
    """Count an attempt that ended after its lease was lost. Never raises."""
    if has_meter():
        with recording():
            _instruments().refused.add(1, _about("settle", task.queue, task.name))


def count_lost(task: Task) -> None:
    """Count a lease whose worker died, or did not renew it. Never raises."""
    if has_meter():
        with recording():
            _instruments().lost.add(1, _about("settle", task.queue, task.name))


def _about(operation: str, queue: str, name: str, error: BaseException | None = None) -> Attributes:
    about: Attributes = {conventions.DESTINATION: queue, conventions.TASK_NAME: name}
    failed: Attributes = {} if error is None else {conventions.ERROR_TYPE: conventions.error_type(error)}
    return conventions.operation(operation) | about | failed


class _Instruments:
    def __init__(self) -> None:
        from opentelemetry import metrics  # may be absent with older FastAPI versions

        meter = metrics.get_meter(conventions.SCOPE)
        count = meter.create_counter
        self.sent = count(conventions.SENT, "{message}", "Tasks that were stored.")
        self.consumed = count(conventions.CONSUMED, "{message}", "Attempts that have ended.")
        self.refused = count(conventions.REFUSED, "{attempt}", "Attempts that ended after their lease was lost.")
        self.lost = count(conventions.LOST, "{lease}", "Leases whose worker died, or did not renew them.")
        self.duration = _histogram(meter, conventions.PROCESS_DURATION, "Duration of attempts.")


@cache
def _instruments() -> _Instruments:
    return _Instruments()


def _histogram(meter: Any, name: str, description: str) -> Any:
    try:
        return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=SECONDS)
    except TypeError:  # the API before 1.30 leaves the bounds to the user's views
        return meter.create_histogram(name, "s", description)
