"""The live workers of a store."""

from afterwards.core.routing import ALIVE, LiveWorker
from afterwards.engine import Engine


async def live_workers(engine: Engine) -> list[LiveWorker]:
    """Return the workers that give signs of life, and have not left. The engine compares instants by its own clock."""
    return [worker for worker in await engine.workers(ALIVE) if not worker.has_left]
