"""The tasks that benchmarks store and run."""

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from afterwards import task
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Engine

ARGUMENTS = '{"email":"somebody@example.com","user":12345,"mails":[1]}'  # 57 bytes

AT_ONCE = 1000
"""Tasks stored in one call outside of measurements."""


class Countdown:
    """Waits until an expected number of tasks has run."""

    def __init__(self) -> None:
        self.left = 0
        self.over = asyncio.Event()

    def count(self) -> None:
        self.left -= 1
        if not self.left:
            self.over.set()


countdown = Countdown()


@task
async def nothing(number: int) -> None:
    """Do nothing but count the run."""
    countdown.count()


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def new_task(*, name: str = "nothing", arguments: str = '{"number":1}', wait: timedelta = timedelta()) -> NewTask:
    """Return a new task as a sender makes it."""
    return NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name=name, arguments=arguments, wait=wait)


async def fill(engine: Engine, tasks: int) -> None:
    """Store calls of ``nothing``."""
    for _ in range(0, tasks, AT_ONCE):
        await engine.enqueue(_some(min(tasks, AT_ONCE)))


def _some(number: int) -> Sequence[NewTask]:
    return [new_task() for _ in range(number)]
