"""The lines that are logged during one attempt: the first ones, and the last ones."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from afterwards.core.task import LogLine

LINES = 100
"""The most lines of each end that are kept: the first ones, and the last ones."""

BYTES = 32 * 1024
"""The most bytes of UTF-8 in the messages of each end."""


def _nothing() -> None:
    """Tell nobody."""


class AttemptLog:
    """Collects lines from any thread. ``changed`` is called after each line."""

    def __init__(self, changed: Callable[[], object] = _nothing) -> None:
        self._changed = changed
        self._changing = threading.RLock()  # a finalizer or a signal handler may log while a line is added
        self._first = _End()
        self._last = _End()
        self._left_out = 0

    def add(self, line: LogLine) -> None:
        with self._changing:
            if self._last.lines or not self._first.has_room(line):
                self._last.lines.append(line)
                self._last.bytes += _size(line)
                self._left_out += self._last.shorten()
            else:
                self._first.lines.append(line)
                self._first.bytes += _size(line)
        self._changed()

    def replace(self, lines: Sequence[LogLine]) -> None:
        """Hold lines that were collected elsewhere: in the process that runs the function."""
        with self._changing:
            self._first.lines = deque(lines)

    def lines(self) -> tuple[LogLine, ...]:
        """Return the lines, oldest first. A line between the two ends says how many are left out."""
        with self._changing:
            first, last, left_out = tuple(self._first.lines), tuple(self._last.lines), self._left_out
        return (*first, _gap(left_out, last[0]), *last) if left_out else (*first, *last)


class _End:
    """The first lines of an attempt, or the last ones."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque()
        self.bytes = 0

    def has_room(self, line: LogLine) -> bool:
        return len(self.lines) < LINES and self.bytes + _size(line) <= BYTES

    def shorten(self) -> int:
        """Drop the oldest lines that are too many. Returns how many."""
        dropped = 0
        while len(self.lines) > LINES or self.bytes > BYTES:
            self.bytes -= _size(self.lines.popleft())
            dropped += 1
        return dropped


def _size(line: LogLine) -> int:
    return len(line.message.encode())


def _gap(left_out: int, after: LogLine) -> LogLine:
    lines = "1 line is" if left_out == 1 else f"{left_out} lines are"
    return LogLine(
        attempt=after.attempt, at=after.at, level="INFO", logger="afterwards", message=f"({lines} left out here)"
    )
