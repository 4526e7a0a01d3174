"""The lifetime of a worker, which all its parts share."""

import asyncio


class Lifetime:
    """A worker serves, drains, and is over, in this order."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()  # nothing more is claimed or fired
        self.hurried = asyncio.Event()  # a second signal came: nothing waits for running attempts
        self.released = asyncio.Event()  # what ran after the grace period is given back, but for what cannot be stopped
        self.over = False  # no part is started again; only attempts that could not be stopped are left
