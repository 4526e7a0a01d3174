"""Lets the functions of these applications know which task and attempt they are run for.

The library does not tell them, so this is put round the one function that runs attempts; it changes nothing there.
And where a test has no minute to wait for the tasks of a request that a kill cut off, they are held for less.
"""

import os
from contextvars import ContextVar
from datetime import timedelta

from afterwards import Task
from afterwards.core import lifecycle
from afterwards.core.lifecycle import Outcome
from afterwards.worker import loop
from afterwards.worker.attempt import Runnable, Surroundings, attempt

current_task: ContextVar[Task] = ContextVar("current_task")


async def _attempt(function: Runnable, task: Task, surroundings: Surroundings) -> Outcome:
    current_task.set(task)
    return await attempt(function, task, surroundings)


def make_known() -> None:
    loop.attempt = _attempt
    if hold := os.environ.get("CHAOS_HOLD"):
        lifecycle.HOLD = timedelta(seconds=float(hold))
