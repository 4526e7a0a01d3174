"""Distinguish a cancellation from outside from a CancelledError raised by the user's code."""

import asyncio


def is_being_cancelled() -> bool:
    """Return whether this attempt was cancelled from outside. A function may raise CancelledError by itself."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
