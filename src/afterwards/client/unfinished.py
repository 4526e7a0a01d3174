"""Find out why a task that somebody waits for has not finished."""

import asyncio
from contextlib import suppress

from afterwards.core.errors import EngineError, NotFinished
from afterwards.core.routing import ALIVE
from afterwards.core.standing import standing
from afterwards.core.task import Task
from afterwards.engine import Engine

ASKS_FOR = 1.0
"""Seconds that the reason may take: whoever waits has a timeout."""


async def not_finished(engine: Engine, id: str, after: str) -> NotFinished:
    """Return the error for a task that has not finished in time. It says where the task stands, if that can be read."""
    said = f"task {id} has not finished within {after}; it continues"
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(ASKS_FOR):
            for task in await engine.get([id]):
                said = f"task {id} ({task.name}) has not finished within {after}: it {await _standing(engine, task)}"
    return NotFinished(said)


async def _standing(engine: Engine, task: Task) -> str:
    if task.state.finished:
        return "has finished just now"
    return standing(task, await engine.paused(), await engine.workers(ALIVE))
