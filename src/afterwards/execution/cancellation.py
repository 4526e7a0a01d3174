"""Tell a cancellation from outside from a CancelledError of the user's."""

import asyncio


def is_being_cancelled() -> bool:
    """Whether somebody cancelled this attempt, as against a function that raises CancelledError by itself."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
