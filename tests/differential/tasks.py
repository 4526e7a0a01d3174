"""Functions that situations add as background tasks; plain here, decorated by the kit where the variant says so."""

import asyncio

from differential.diary import record


def note(text: str) -> None:
    """Runs in a thread."""
    record(f"note {text}: starts")
    record(f"note {text}: ends")


async def async_note(text: str) -> None:
    """Runs on the event loop, and lets others run in between."""
    record(f"async note {text}: starts")
    await asyncio.sleep(0)
    record(f"async note {text}: ends")


def failing_note(text: str) -> None:
    record(f"failing note {text}: starts")
    raise LookupError(f"on purpose: {text}")


async def failing_async_note(text: str) -> None:
    record(f"failing async note {text}: starts")
    await asyncio.sleep(0)
    raise LookupError(f"on purpose: {text}")
