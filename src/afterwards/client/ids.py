"""Random bytes for ids."""

import os
import threading


class Randomness:
    """Random bytes of the system, fetched many at a time: each system call releases the interpreter's lock."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):  # a child must not reuse its parent's bytes
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._fetched = b""
        self._given = 0  # number of bytes given out

    def take(self, count: int) -> bytes:
        with self._lock:
            begin, end = self._given, self._given + count
            if end > len(self._fetched):
                self._fetched, begin, end = os.urandom(1000 * count), 0, count
            self._given = end
            return self._fetched[begin:end]


randomness = Randomness()
