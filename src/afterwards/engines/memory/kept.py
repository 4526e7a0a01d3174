"""The state that all parts of the engine share."""

import threading
from collections.abc import Callable
from datetime import datetime


class Kept:
    """A part of the engine that keeps data in memory, with its clock and its lock."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # heartbeats come from another thread
