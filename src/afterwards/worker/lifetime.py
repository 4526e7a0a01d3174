"""How far a worker has come to its end, for all of its parts to see."""

import asyncio


class Lifetime:
    """A worker serves, then drains, and is over."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()  # nothing more is claimed or fired
        self.hurried = asyncio.Event()  # a second signal: nobody waits for what runs
        self.over = False  # no part is started again; what is left is only what could not be stopped
