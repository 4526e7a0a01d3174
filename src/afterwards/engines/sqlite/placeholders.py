"""Statements with a placeholder for each value, in few sizes, because each size is prepared."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TypeVar

T = TypeVar("T")

INSERT = "INSERT INTO afterwards_tasks ({columns}) VALUES {rows}"


@lru_cache
def insert(columns: tuple[str, ...], count: int) -> str:
    """Return the statement for ``count`` tasks with these columns. Others are NULL, and cost nothing to bind."""
    row = f"({', '.join('?' * len(columns))})"
    return INSERT.format(columns=", ".join(columns), rows=", ".join([row] * count))


SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of places or ids in one statement, few so that few are prepared. Old versions of SQLite allow 999."""


def pieces(named: Sequence[T], most: int = SIZES[-1]) -> Iterator[Sequence[T]]:
    """Cut the places or ids into pieces that one statement can name."""
    return (named[start : start + most] for start in range(0, len(named), most))


def padded(named: Sequence[T]) -> list[T]:
    """Repeat the last item up to the next of the sizes."""
    size = next(size for size in SIZES if size >= len(named))
    return [*named, *[named[-1]] * (size - len(named))]


@cache
def sized(statement: str, places: int, results: int = 1) -> str:
    """Return the statement for the number of items that ``padded`` gives, because each number is prepared."""
    result = "?" if results == 1 else f"CASE id{' WHEN ? THEN ?' * results} END"
    return statement.format(places=", ".join("?" * places), result=result)
