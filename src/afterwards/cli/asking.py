"""Questions to the person at the terminal."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from afterwards.cli.errors import UsageError


def must_be_possible(instead: str) -> None:
    """Raise UsageError if there is nobody to ask."""
    if not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked here {instead}: give --yes")


def agreed(question: str) -> bool:
    """Ask on stderr, and read one line. Anything but a yes is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    with _interruptible():
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the wait for a line: on an event loop it would only cancel the task that waits here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
