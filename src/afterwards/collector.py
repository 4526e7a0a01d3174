"""How often Python's garbage collector looks at the objects of a process that serves."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

BEFORE_3_13 = (700, 10, 10)
"""What Python up to 3.12 begins with."""

SINCE_3_13 = (2000, 10, 10)
"""What later versions begin with."""


@contextmanager
def less_often() -> Iterator[None]:
    """Meanwhile the collector of an older Python looks as often as a newer one's, unless somebody else has chosen.

    A request that waits for its commit keeps about a hundred objects alive: with 700 as the threshold, seven of them
    have the collector look through all young objects, and find nothing.
    """
    if gc.get_threshold() != BEFORE_3_13:
        yield
        return
    gc.set_threshold(*SINCE_3_13)
    try:
        yield
    finally:
        if gc.get_threshold() == SINCE_3_13:
            gc.set_threshold(*BEFORE_3_13)
