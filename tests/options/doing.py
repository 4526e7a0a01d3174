"""Task functions that the tests of options share, and what they remember."""

import asyncio
from collections import Counter

busy: Counter[str] = Counter()
most: Counter[str] = Counter()
"""How many ran at once, and how many at most, by key."""


async def occupy(key: str, seconds: float = 0.02) -> None:
    """Run for a moment, and see who else does."""
    busy[key] += 1
    most[key] = max(most[key], busy[key])
    try:
        await asyncio.sleep(seconds)
    finally:
        busy[key] -= 1


def forget() -> None:
    busy.clear()
    most.clear()
