"""Wait for the first of several awaitables."""

import asyncio
from typing import Any


async def first(*awaitables: Any, timeout: float | None = None) -> None:
    """Wait until one of them is done, and cancel the others."""
    waiting = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=timeout)
    finally:
        for one in waiting:
            one.cancel()
