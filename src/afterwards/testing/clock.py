"""``FakeClock``, a clock that moves only when a test advances it."""

import threading
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FakeClock:
    """A callable that returns the time, as engines use it. It is safe to use from any thread.

    >>> clock = FakeClock()
    >>> clock.advance(90)
    >>> clock().isoformat()
    '2026-01-01T12:01:30+00:00'
    """

    def __init__(self, start: datetime = START) -> None:
        if start.tzinfo is None:
            raise ValueError(
                f"{start} has no time zone: give an aware datetime, such as datetime(2026, 1, 1, tzinfo=UTC)"
            )
        self._now = start.astimezone(UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def advance(self, span: float | timedelta) -> None:
        """Move the clock by seconds or a timedelta. A negative span moves it back."""
        with self._lock:
            self._now += span if isinstance(span, timedelta) else timedelta(seconds=span)
