"""Random bytes for ids."""

import os
import threading


class Randomness:
    """The system's random bytes, fetched many at a time: each system call lets go of the interpreter's lock."""

    def __init__(self) -> None:
        self._left = b""
        self.forget()
        if hasattr(os, "register_at_fork"):  # a child must not give out what its parent has given out
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._left = b""

    def take(self, count: int) -> bytes:
        with self._lock:
            if len(self._left) < count:
                self._left = os.urandom(1000 * count)
            taken, self._left = self._left[:count], self._left[count:]
        return taken


randomness = Randomness()
