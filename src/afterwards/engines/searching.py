"""The search for a text in many tasks, in pieces, for engines whose tasks have places in the order stored."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from afterwards.core.queries import Query
from afterwards.core.task import State, Task

FEW = frozenset({State.RUNNING, State.FAILED, State.CANCELLED})
"""The states in which there are so few tasks that their index is faster than a look at all tasks in turn."""

FIRST, LAST = -(2**63), 2**63 - 1
"""Below and above the ``seq`` of every task."""


class Span(NamedTuple):
    """The places in which to look."""

    first: int = FIRST
    below: int = LAST

    @property
    def next(self) -> int | None:
        """Below which place to look next, None if this is the last span."""
        return None if self.first == FIRST else self.first


ALL = Span()
"""All places."""


async def find(query: Query, piece: Callable[[Query, int], Awaitable[tuple[list[Task], int | None]]]) -> list[Task]:
    """Return the tasks of all pieces. A task that changes meanwhile is listed as it was or as it is.

    ``piece`` returns the tasks below a place, and the place below which to go on, None at the end.
    """
    found: list[Task] = []
    below: int | None = LAST
    while below is not None and len(found) < query.limit:
        tasks, below = await piece(replace(query, limit=query.limit - len(found)), below)
        found += tasks
    return found


async def count(query: Query, piece: Callable[[Query, int], Awaitable[tuple[int, int | None]]]) -> int:
    """Return the number of the tasks in all pieces."""
    found = 0
    below: int | None = LAST
    while below is not None and found < query.limit:
        counted, below = await piece(replace(query, limit=query.limit - found), below)
        found += counted
    return found
