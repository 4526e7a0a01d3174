"""Several statements in one message, and so in one round trip.

A message of several statements cannot have values beside its text. So each statement is prepared once for a connection,
as the driver does it for single ones, and the message executes it with its values as literals.
"""

import re
from collections.abc import Sequence
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

from afterwards.engine import Answer
from afterwards.engines.postgres.io.connections import Connection


class Prepared:
    """The statements that are prepared for each connection, by their text."""

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[Connection, dict[str, str]] = WeakKeyDictionary()
        self._numbers = count(1)  # a name is not used again: not every forgotten statement is deallocated

    async def execution(self, connection: Connection, text: str, values: Sequence[Any]) -> str:
        """Return the SQL that executes a statement with these values. The first time, it prepares the statement."""
        names = self._names.setdefault(connection, {})
        if text not in names:
            name = f"afterwards_{next(self._numbers)}"
            await connection.execute(f"PREPARE {name} AS {numbered(text)}", prepare=False)
            names[text] = name  # not before: an error would leave it unprepared
        return f"EXECUTE {names[text]}({', '.join(map(literal, values))})" if values else f"EXECUTE {names[text]}"

    def forget(self, connection: Connection) -> None:
        """Prepare all again. The driver deallocates the statements of a session after each rollback."""
        self._names.pop(connection, None)


async def answers(connection: Connection, statements: Sequence[str]) -> list[Answer]:
    """Send statements in one message, and return the answer to each. After an error, those behind it are skipped."""
    text = ";\n".join(statements)
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    cursor = await connection.execute(text, prepare=False)
    found = [await _answer(cursor)]
    while cursor.nextset():
        found.append(await _answer(cursor))
    return found


async def answer(connection: Connection, text: str, values: Sequence[Any]) -> Answer:
    """Send one statement, and return its answer."""
    return await _answer(await connection.execute(text, values or None))


async def _answer(cursor: psycopg.AsyncCursor[tuple[Any, ...]]) -> Answer:
    return Answer(await cursor.fetchall() if cursor.description else [], cursor.rowcount)


def numbered(text: str) -> str:
    """Return a statement for the driver, with ``%s`` for each value, as the server prepares it."""
    number = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal number
        if found[0] == "%%":
            return "%"
        number += 1
        return f"${number}"

    return _PLACE.sub(replaced, text)


def inlined(text: str, values: Sequence[Any]) -> str:
    """Return a statement for the driver with its values as literals."""
    left = iter(values)
    return _PLACE.sub(lambda found: "%" if found[0] == "%%" else literal(next(left)), text)


_PLACE = re.compile("%[s%]")


def literal(value: object) -> str:
    """Return a value as SQL. The type of a text or an array is the one that its place asks for."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():  # this form means the same whatever standard_conforming_strings is
            return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
        case list() | tuple():
            return literal("{" + ",".join(map(_element, value)) + "}")
        case _:
            raise TypeError(f"a statement cannot have a {type(value).__name__} as a value")


def _element(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return literal(value)
