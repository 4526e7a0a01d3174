"""The plain functions that run now for one installation."""

from collections.abc import Iterator
from contextlib import contextmanager

from afterwards.core.routing import PlainRun

MOST_SHOWN = 100
"""The most functions that a worker announces: those that have run longest."""


class PlainRuns:
    """Knows plain functions while they run. Used on any event loop and in any thread."""

    def __init__(self) -> None:
        self._running: dict[object, PlainRun] = {}

    @contextmanager
    def running(self, run: PlainRun) -> Iterator[None]:
        """Show a function as running inside the block."""
        key = object()
        self._running[key] = run
        try:
            yield
        finally:
            del self._running[key]

    def shown(self) -> tuple[PlainRun, ...]:
        """Return those that began first."""
        return tuple(list(self._running.values())[:MOST_SHOWN])
