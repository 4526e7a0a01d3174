"""Which task and attempt these applications' functions are run for; and a shorter hold, where a test has no minute."""

import os
from datetime import timedelta

from afterwards.core import lifecycle
from afterwards.core.task import Task
from afterwards.execution.context import current


def current_task() -> Task:
    """The task of the attempt that runs here."""
    attempting = current.get()
    assert attempting is not None
    return attempting.context.task


def hold_shortly() -> None:
    """Where a test has no minute to wait for the tasks of a request that a kill cut off, they are held for less."""
    if hold := os.environ.get("CHAOS_HOLD"):
        lifecycle.HOLD = timedelta(seconds=float(hold))
