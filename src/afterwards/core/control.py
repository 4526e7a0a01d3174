"""Exceptions that a task function raises to decide how its attempt ends."""

from datetime import timedelta

from afterwards.core.errors import AfterwardsError
from afterwards.core.spans import as_span


class RetryAfter(AfterwardsError):
    """Raise in a task function to retry it after a delay (seconds or a timedelta). It counts against ``retries``."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or "asked to be retried")
        self.delay = as_span(delay, "RetryAfter, delay")


class Snooze(AfterwardsError):
    """Raise in a task function to run it again after a delay (seconds or a timedelta). It is not a failure."""

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__("snoozed")
        self.delay = as_span(delay, "Snooze, delay")


class Cancel(AfterwardsError):
    """Raise in a task function to end its task as cancelled, with a reason."""

    def __init__(self, reason: str = "cancelled by the task itself") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)
