"""Distinguish a cancellation from outside from a CancelledError raised by the user's code."""

import asyncio


def is_being_cancelled() -> bool:
    """Return whether this attempt was cancelled from outside. A function may raise CancelledError by itself."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def is_own_cancellation(error: BaseException) -> bool:
    """Return whether an exception is the cancellation of the current coroutine."""
    return isinstance(error, asyncio.CancelledError) and is_being_cancelled()


def is_the_end(error: BaseException) -> bool:
    """Return whether an exception ends the current coroutine: it is cancelled or closed, or somebody pressed Ctrl-C.

    Any other exception was raised by some code, whatever its class is.
    """
    return isinstance(error, GeneratorExit | KeyboardInterrupt) or is_own_cancellation(error)
