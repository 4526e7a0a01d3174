"""What all parts of the engine share."""

import threading
from collections.abc import Callable
from datetime import datetime


class Kept:
    """Something that is kept in memory: by this clock, and behind this lock."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # heartbeats come from another thread
