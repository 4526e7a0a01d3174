"""The exceptions with which a task function decides how its attempt ends."""

from datetime import timedelta

from afterwards.core.errors import AfterwardsError
from afterwards.core.spans import as_span


class RetryAfter(AfterwardsError):
    """Raised by a task function: run me again after this long. Counts as a failure, against ``retries``."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or "asked to be retried")
        self.delay = as_span(delay, "RetryAfter, delay")


class Snooze(AfterwardsError):
    """Raised by a task function: run me again after this long. Not a failure."""

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__("snoozed")
        self.delay = as_span(delay, "Snooze, delay")


class Cancel(AfterwardsError):
    """Raised by a task function: stop here and record me as cancelled."""

    def __init__(self, reason: str = "cancelled by the task itself") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)
