"""Python's garbage collector, while many requests wait for one commit: it need not look for garbage among them."""

import gc
import threading

OBJECTS = 128
"""How many of the objects that the collector counts a waiting request keeps alive, FastAPI's and ours; about a hundred.

The collector looks through the young objects when so many more were made than were given up as its threshold says: 700,
or 2000 since Python 3.13. A few waiting requests are as many, and none of them is garbage."""

STEP = 32
"""The threshold is set for so many requests at a time."""


class Allowance:
    """Raises the threshold of the collector by what waiting requests keep alive, for as long as they wait.

    What somebody else sets is what it is raised from; a collector that is switched off stays so. It counts in one
    thread, that of the server's event loop.
    """

    def __init__(self) -> None:
        self._thread: int | None = None
        self._waiting = 0
        self._allowed = 0
        self._usual = 0
        self._given: int | None = None  # the threshold as it was set here, while it is raised

    def begin(self) -> None:
        """A request waits."""
        if self._thread is None:
            self._thread = threading.get_ident()
        if self._thread != threading.get_ident():
            return
        self._waiting += 1
        if self._waiting > self._allowed:
            self._allow(self._allowed + STEP)

    def end(self) -> None:
        """It waits no longer."""
        if self._thread != threading.get_ident():
            return
        self._waiting -= 1
        if self._waiting == 0:
            self._allow(0)
        elif self._waiting < self._allowed // 4:
            self._allow(self._allowed // 2)

    def _allow(self, requests: int) -> None:
        self._allowed = requests
        threshold, *others = gc.get_threshold()
        if threshold != self._given:
            self._usual = threshold
        if self._usual > 0:
            self._given = self._usual + requests * OBJECTS
            gc.set_threshold(self._given, *others)


allowance = Allowance()
"""That of this process."""
