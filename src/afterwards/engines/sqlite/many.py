"""Statements about many rows at once: a list takes as many as it has pieces, not one for each item."""

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from afterwards.engines.sqlite import statements
from afterwards.engines.sqlite.io.connection import MOST_ROWS, MOST_VALUES, Connection

Row = tuple[Any, ...]


def select(connection: Connection, statement: str, named: Collection[Any], *others: Any) -> list[Row]:
    """Return the rows of a statement that names ``{places}``; the other values come after those."""
    return [row for cursor in _naming(connection, statement, named, others) for row in cursor.fetchall()]


def change(connection: Connection, statement: str, named: Collection[Any], *others: Any) -> int:
    """Change the rows that a statement names by ``{places}``. Returns how many there were."""
    return sum(cursor.rowcount for cursor in _naming(connection, statement, named, others))


def with_rows(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute a statement with ``{rows}`` of values, which may come twice: for updates."""
    _with_rows(connection, statement, rows, twice=True)


def insert(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute a statement with ``{rows}`` of values, each once."""
    _with_rows(connection, statement, rows, twice=False)


def _naming(connection: Connection, statement: str, named: Collection[Any], others: Sequence[Any]) -> Iterator[Any]:
    most = statements.SIZES[-1]
    for some in statements.pieces([*named], most):
        padded = statements.padded(some)
        yield connection.execute(statements.sized(statement, len(padded)), (*padded, *others))


def _with_rows(connection: Connection, statement: str, rows: Sequence[Sequence[Any]], *, twice: bool) -> None:
    if not rows:
        return
    width = len(rows[0])
    most = max(1, min(MOST_ROWS, MOST_VALUES // width))
    if twice:
        most = 1 << (most.bit_length() - 1)  # a size to which pieces are padded
    for some in statements.pieces(rows, most):
        padded = statements.padded(some) if twice else some
        connection.execute(_sized(statement, width, len(padded)), [*chain.from_iterable(padded)])


@cache
def _sized(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.format(rows=", ".join([row] * count))
