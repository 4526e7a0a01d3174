"""The live workers of a store, and other processes that are registered in it."""

from afterwards.core.routing import ALIVE, LiveWorker
from afterwards.engine import Engine


async def live_processes(engine: Engine) -> list[LiveWorker]:
    """Return the workers and dispatchers that give signs of life, and have not left. By the engine's clock."""
    return [worker for worker in await engine.workers(ALIVE) if not worker.has_left]


async def live_workers(engine: Engine) -> list[LiveWorker]:
    """Return the live workers: without processes that only dispatch."""
    return [worker for worker in await live_processes(engine) if not worker.dispatches]
