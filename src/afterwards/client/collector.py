"""Python's garbage collector, while many requests wait for one commit: it need not look for garbage among them."""

import gc
import os
import threading

OBJECTS = 192
"""How many objects that the collector counts a waiting request keeps alive, the server's, FastAPI's and ours, and some
to spare: with uvicorn it is about a hundred and thirty.

The collector looks through the young objects when so many more were made than were given up as its threshold says: 700,
or 2000 since Python 3.13. A few waiting requests are as many, and none of them is garbage."""

STEP = 32
"""The threshold is set for so many requests at a time."""


class Allowance:
    """Raises the threshold of the collector by what waiting requests keep alive, for as long as they wait.

    What somebody else sets is what it is raised from; a collector that is switched off stays so.
    """

    def __init__(self) -> None:
        self._raised: dict[int, int] = {}  # the thresholds that were set here, and what they were raised from
        self._forget()
        if hasattr(os, "register_at_fork"):  # nobody waits in a child
            os.register_at_fork(after_in_child=self._begin_anew)

    def begin(self) -> None:
        """A request waits."""
        with self._lock:
            self._waiting += 1
            if self._waiting > self._allowed:
                self._allow(self._allowed + STEP)

    def end(self) -> None:
        """It waits no longer."""
        with self._lock:
            self._waiting -= 1
            if self._waiting == 0:
                self._allow(0)
            elif self._waiting < self._allowed // 4:
                self._allow(self._allowed // 2)

    def _allow(self, requests: int) -> None:
        self._allowed = requests
        threshold, *others = gc.get_threshold()
        usual = self._raised.get(threshold, threshold)  # also where somebody puts back what was set here
        if usual > 0:
            allowed = usual + requests * OBJECTS
            if requests:
                self._raised[allowed] = usual
            gc.set_threshold(allowed, *others)

    def _begin_anew(self) -> None:
        self._forget()
        self._allow(0)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._allowed = 0


allowance = Allowance()
"""That of this process."""
