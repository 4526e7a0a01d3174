"""A clock that moves only when told."""

import threading
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FakeClock:
    """Call it for the time, as an engine does; any thread may move it.

    >>> clock = FakeClock()
    >>> clock.advance(90)
    >>> clock().isoformat()
    '2026-01-01T12:01:30+00:00'
    """

    def __init__(self, start: datetime = START) -> None:
        if start.tzinfo is None:
            raise ValueError(f"{start} has no time zone: give an aware datetime, as datetime(2026, 1, 1, tzinfo=UTC)")
        self._now = start.astimezone(UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def advance(self, span: float | timedelta) -> None:
        """Move by seconds or a timedelta; a negative one moves back, as a wall clock can."""
        with self._lock:
            self._now += span if isinstance(span, timedelta) else timedelta(seconds=span)
