"""The statements of an operation, in as few messages as possible."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import psycopg

from afterwards.engine import Answer
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.io import messages
from afterwards.engines.postgres.io.connections import SETTINGS, Connection
from afterwards.engines.postgres.io.errors import is_lost
from afterwards.engines.postgres.work import Operation, Request, Work

R = TypeVar("R")

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Named, because the default may be another one: each statement must see what was committed before it, also by those
whom the statement before it has waited for."""


class Statements(Protocol):
    """Turns an operation's statements into those of the server."""

    @property
    def pooled(self) -> bool: ...

    def text_of(self, statement: str, /) -> str: ...

    async def answer(self, connection: Connection, request: Request, /) -> Answer: ...

    async def as_text(self, connection: Connection, request: Request, /) -> str: ...


class Asked(Protocol):
    """Something that answers an operation's requests."""

    async def ask(self, requests: Sequence[Request], /) -> list[Answer]: ...


class Questions:
    """Statements outside a transaction."""

    def __init__(self, server: Statements, connection: Connection) -> None:
        self._server = server
        self._connection = connection

    async def ask(self, requests: Sequence[Request], /) -> list[Answer]:
        return [await self._server.answer(self._connection, request) for request in requests]


class Dialogue:
    """The statements of one transaction, in as few messages as possible."""

    def __init__(self, server: Statements, connection: Connection, work: Work, opening: str) -> None:
        self._server = server
        self._connection = connection
        self._work = work
        self._opening = opening
        self._has_asked = False
        self.is_begun = False
        self.may_be_committed = False

    def may_be_repeated_after(self, error: Exception) -> bool:
        """Return True if the connection was lost, or was no good from the beginning, and nothing is done twice."""
        is_over = is_lost(error) or (isinstance(error, psycopg.OperationalError) and not self._has_asked)
        return is_over and (self._work.is_repeatable or not self.may_be_committed)

    async def ask(self, requests: Sequence[Request], /) -> list[Answer]:
        """Send statements. The first ones begin the transaction; if they are the last ones, they commit it, too."""
        self._has_asked |= bool(requests)
        if self._server.pooled:  # a session belongs to nobody there, so nothing is prepared in it
            return await self._one_by_one(requests)
        if self.is_begun and len(requests) == 1 and not self._work.is_last:
            return [await self._server.answer(self._connection, requests[0])]
        texts = [await self._server.as_text(self._connection, request) for request in requests]
        begins = [] if self.is_begun else [BEGIN, self._server.text_of(self._opening)]
        self.may_be_committed = self._work.is_last
        found = await messages.answers(self._connection, [*begins, *texts, *(["COMMIT"] * self._work.is_last)])
        if begins:
            self._begun(found.pop(0) for _ in range(2 + self._opening.count(";")))
        return found[: len(requests)]

    async def commit(self) -> None:
        """Commit what the operation has done, if its last statements have not."""
        if self.is_begun and not self.may_be_committed:
            self.may_be_committed = True
            await self._connection.execute("COMMIT")

    async def _one_by_one(self, requests: Sequence[Request]) -> list[Answer]:
        if not self.is_begun:
            settings = (f"SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items())
            opening = self._server.text_of(self._opening)
            self._begun(await messages.answers(self._connection, [BEGIN, *settings, opening]))
        return [await self._server.answer(self._connection, request) for request in requests]

    def _begun(self, answers: Iterable[Answer]) -> None:
        *_, opened = answers
        [(now, *opened_with)] = opened.rows
        self.is_begun = True
        self._work.now, self._work.opened_with = rows.to_instant(now), opened_with


async def run(asked: Asked, operation: Operation[R]) -> R:
    """Run an operation. Returns its result."""
    try:
        requests = next(operation)
        while True:
            requests = operation.send(await asked.ask(requests))
    except StopIteration as end:
        result: R = end.value
        return result
