"""How late the event loop of a worker was lately."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic

SPAN = 10.0
"""Seconds that are kept at least: the time between two signs of life of a worker."""


class Lateness:
    """The longest lateness within the last 10 to 20 seconds, in two halves. Any thread may report."""

    def __init__(self, steady: Callable[[], float] = monotonic) -> None:
        self._steady = steady
        self._since: float | None = None  # when the current half began; None: nothing was measured yet
        self._before = self._now = 0.0

    def note(self, seconds: float) -> None:
        """Record that the loop was late by so many seconds."""
        self._turn()
        self._now = max(self._now, seconds)

    def longest(self) -> timedelta | None:
        """Return the longest lateness, None if none was measured."""
        if self._since is None:
            return None
        self._turn()
        return timedelta(seconds=max(self._before, self._now))

    def _turn(self) -> None:
        """Begin a new half if the current one is over."""
        at = self._steady()
        if self._since is None:
            self._since = at
        elif at - self._since >= SPAN:
            self._before = self._now if at - self._since < 2 * SPAN else 0.0
            self._since, self._now = at, 0.0
