"""Statements for many rows at once: a list takes one statement for each piece, not for each item."""

from collections.abc import Collection, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from afterwards.engines.sqlite.io.connection import MOST_ROWS, MOST_VALUES, Connection, Cursor

T = TypeVar("T")

Row = tuple[Any, ...]

MOST_NAMED = 256
"""Places or ids that one statement names."""


def select(connection: Connection, statement: str, named: Collection[Any], *others: Any) -> list[Row]:
    """Return the rows of a statement that names ``{places}``. The other values come after those."""
    if len(named) == 1:  # the usual case
        return connection.execute(_naming(statement, 1), (*named, *others)).fetchall()
    pieces = (_padded(some) for some in _pieces([*named], MOST_NAMED))
    found = (connection.execute(_naming(statement, len(some)), (*some, *others)) for some in pieces)
    return [row for cursor in found for row in cursor.fetchall()]


def change(
    connection: Connection, statement: str, named: Collection[Any], *others: Any, before: Sequence[Any] = ()
) -> int:
    """Change the rows that a statement names by ``{places}``. Returns how many there were.

    The other values come after those, or, as ``before``, before them.
    """
    changed = 0
    for piece in _pieces([*named], MOST_NAMED):
        some = _padded(piece)
        changed += connection.execute(_naming(statement, len(some)), (*before, *some, *others)).rowcount
    return changed


def insert(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute a statement with ``{rows}`` of values, each row once."""
    if rows:
        for some in _pieces(rows, min(MOST_ROWS, MOST_VALUES // len(rows[0]))):
            _with_rows(connection, statement, some)


def update(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute a statement with ``{rows}`` of values, of which some may be repeated."""
    for some in _padded_rows(rows):
        _with_rows(connection, statement, some)


def select_by_rows(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Return the result of a statement with ``{rows}`` of values. Some results may be repeated."""
    return [row for some in _padded_rows(rows) for row in _with_rows(connection, statement, some).fetchall()]


def _with_rows(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> Cursor:
    return connection.execute(_sized(statement, len(rows[0]), len(rows)), [*chain.from_iterable(rows)])


def _padded_rows(rows: Sequence[Sequence[Any]]) -> list[Sequence[Sequence[Any]]]:
    if not rows:
        return []
    most = min(MOST_ROWS, MOST_VALUES // len(rows[0]))
    return [_padded(some) for some in _pieces(rows, 1 << (most.bit_length() - 1))]


def _pieces(items: Sequence[T], most: int) -> list[Sequence[T]]:
    return [items[start : start + most] for start in range(0, len(items), most)]


def _padded(items: Sequence[T]) -> Sequence[T]:
    """Repeat the last item up to a power of two, because each number of items is a statement to prepare."""
    size = 1 << (len(items) - 1).bit_length()
    return items if len(items) == size else [*items, *[items[-1]] * (size - len(items))]


@cache
def _naming(statement: str, count: int) -> str:
    return statement.format(places=", ".join("?" * count))


@cache
def _sized(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.format(rows=", ".join([row] * count))
