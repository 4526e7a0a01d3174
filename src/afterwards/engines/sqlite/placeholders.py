"""Statements with as many placeholders as there are values, of few sizes, for each is prepared."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TypeVar

T = TypeVar("T")

INSERT = "INSERT INTO afterwards_tasks ({columns}) VALUES {rows}"


@lru_cache
def insert(columns: tuple[str, ...], count: int) -> str:
    """The statement for so many tasks with these values: what is not named is NULL, and costs nothing to bind."""
    row = f"({', '.join('?' * len(columns))})"
    return INSERT.format(columns=", ".join(columns), rows=", ".join([row] * count))


SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""How many places or ids one statement names, so that few are ever prepared; old versions of SQLite allow 999."""


def pieces(named: Sequence[T], most: int = SIZES[-1]) -> Iterator[Sequence[T]]:
    """What is to be named, in pieces that one statement can name."""
    return (named[start : start + most] for start in range(0, len(named), most))


def padded(named: Sequence[T]) -> list[T]:
    """As many as one of the sizes: the last one is named again."""
    size = next(size for size in SIZES if size >= len(named))
    return [*named, *[named[-1]] * (size - len(named))]


@cache
def sized(statement: str, places: int, results: int = 1) -> str:
    """The statement that names so many places or ids: as many as ``padded`` gives, for each number is prepared."""
    result = "?" if results == 1 else f"CASE id{' WHEN ? THEN ?' * results} END"
    return statement.format(places=", ".join("?" * places), result=result)
