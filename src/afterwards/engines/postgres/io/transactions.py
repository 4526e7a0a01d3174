"""Run operations on the server: one transaction for each, repeated if it crosses another one."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar, cast

import psycopg

from afterwards.core.errors import EngineUnavailable
from afterwards.engine import Answer
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.io import messages
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.connections import Connection, Connections, discard
from afterwards.engines.postgres.io.dialogue import Dialogue, Questions, run
from afterwards.engines.postgres.io.errors import crossed, is_lost, may_be_repeated, translated
from afterwards.engines.postgres.io.messages import Prepared
from afterwards.engines.postgres.io.schema import Identity, prepare, qualified
from afterwards.engines.postgres.work import NEVER, Conflict, Operation, Request, Work

R = TypeVar("R")

Make = Callable[[Work], Operation[R]]
"""Start an operation in a transaction."""

Spawn = Callable[[Coroutine[Any, Any, None]], None]
"""Start a task in the background."""

MOST_TRIES = 8
"""How often a transaction that crosses others is tried."""

PATIENCE = 5.0
"""Seconds after which a call is answered with EngineUnavailable, whatever the server does."""

PATIENCE_OF_A_MOVE = 60.0
"""The same for a batch of a move: megabytes, maybe on a slow line, for which no request waits."""

SERVER_NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"

SERVER_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The time at this place of a statement, which may have waited for a lock."""

OPENING = "SELECT {now}"
"""The SQL with which a transaction begins. Its last statement returns one row, with the time."""

# The server takes a transaction for idle until it has all of a statement.
OPENING_OF_A_MOVE = f"""
SET LOCAL statement_timeout = '{PATIENCE_OF_A_MOVE:g}s';
SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE_OF_A_MOVE:g}s';
{OPENING}
"""


class Server:
    """The server, as operations see it."""

    def __init__(self, address: Address, after_commit: Callable[[Work], None], spawn: Spawn) -> None:
        self.connections = Connections(address)
        self.schema: str | None = None  # known once the tables are there
        self.identity: Identity = ()
        self._spawn = spawn
        self._prepared: asyncio.Future[None] | None = None  # by the preparation that is under way
        self._address = address
        self._clock = address.clock
        self._after_commit = after_commit
        self._prepared_statements = Prepared()

    async def prepare(self) -> None:
        """Connect, and make or migrate the tables if necessary. Raises EngineUnavailable or EngineError.

        It takes as long as a migration takes, also one of another process. A caller that gives up ends its wait only.
        """
        if self.schema is None:
            if self._prepared is None:
                self._prepared = asyncio.get_running_loop().create_future()
                self._spawn(self._prepare(self._prepared))
            await asyncio.shield(self._prepared)

    async def _prepare(self, prepared: asyncio.Future[None]) -> None:
        try:
            async with self.connections.lent() as connection:
                self.schema, self.identity = await prepare(connection, self._address)
        except Exception as error:
            prepared.set_exception(error)
            prepared.exception()  # it may be that nobody waits for it any more
        except BaseException:
            prepared.cancel()
            raise
        else:
            prepared.set_result(None)
        finally:
            self._prepared = None

    async def transact(self, make: Make[R], *, opening: str = OPENING, lazily: bool = False) -> R:
        """Run an operation in a transaction. Raises EngineUnavailable, EngineError, or what the operation raises.

        With ``lazily``, the transaction begins with the operation's first statements, in the same message. So the
        operation must not look at the time before them.
        """
        return await self._bounded(self._transact(make, opening, lazily, PATIENCE), PATIENCE)

    async def move(self, make: Make[R]) -> R:
        """Run an operation that moves a batch, in a transaction that may take longer."""
        return await self._bounded(
            self._transact(make, OPENING_OF_A_MOVE, False, PATIENCE_OF_A_MOVE), PATIENCE_OF_A_MOVE
        )

    async def read(self, make: Make[R]) -> R:
        """Run an operation whose statements need no transaction."""
        return await self._bounded(self._read(make, is_timed=True), PATIENCE)

    async def ask(self, question: Callable[[], Operation[R]]) -> R:
        """Run an operation whose statements need no transaction, and no time but ``{now}``. It is one trip shorter."""
        return await self._bounded(self._read(lambda _: question(), is_timed=False), PATIENCE)

    async def _bounded(self, call: Coroutine[Any, Any, R], patience: float) -> R:
        """Run a call so long as its callers can wait."""
        task, is_late = asyncio.current_task(), False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            self.connections.forget_idle()
            if task and not self.connections.cut_off(task):  # it waits for a connection
                task.cancel()

        timer = asyncio.get_running_loop().call_later(patience, give_up)
        try:
            return await call
        except (asyncio.CancelledError, EngineUnavailable) as error:
            if not is_late:
                raise
            if task and isinstance(error, asyncio.CancelledError):
                task.uncancel()
            shown = self._address.shown
            raise EngineUnavailable(f"{shown} has not answered for {patience:g} seconds") from error
        finally:
            timer.cancel()

    async def _transact(self, make: Make[R], opening: str, lazily: bool, patience: float) -> R:
        tries, until = 0, time.monotonic() + patience
        while True:
            try:
                await self.prepare()
                async with self.connections.lent() as connection:
                    work, result = await self._once(connection, make, opening, lazily, tries)
            except Exception as error:
                tries += 1
                self._note(error)
                if tries < MOST_TRIES and _was_rolled_back(error) and time.monotonic() < until:
                    await asyncio.sleep(0.001 * tries)
                    continue
                raise _last(error, self._address.shown) from error
            self._after_commit(work)
            return result

    async def _once(
        self, connection: Connection, make: Make[R], opening: str, lazily: bool, tries: int
    ) -> tuple[Work, R]:
        work = Work(repeated=tries)
        dialogue = Dialogue(self, connection, work, opening)
        try:
            if not lazily:
                await dialogue.ask(())
            result = await run(dialogue, make(work))
            await dialogue.commit()
        except Exception as error:
            self._prepared_statements.forget(connection)
            await _roll_back(connection)
            if dialogue.may_be_repeated_after(error) and (tries == 0 or not dialogue.is_begun):
                raise NotBegun from error
            raise
        return work, result

    async def _read(self, make: Make[R], *, is_timed: bool) -> R:
        until = time.monotonic() + PATIENCE
        for last in (False, True):
            try:
                await self.prepare()
                async with self.connections.lent() as connection:
                    if self.connections.pooled:  # settings are those of a transaction there
                        return await self._read_in_transaction(connection, make)
                    work = Work(await self._now(connection) if is_timed else NEVER)
                    return await run(Questions(self, connection), make(work))
            except Exception as error:
                self._note(error)
                if last or not is_lost(error) or time.monotonic() >= until:
                    raise _last(error, self._address.shown) from error
        raise AssertionError

    async def _read_in_transaction(self, connection: Connection, make: Make[R]) -> R:
        work = Work()
        dialogue = Dialogue(self, connection, work, OPENING)
        await dialogue.ask(())
        result = await run(dialogue, make(work))
        await dialogue.commit()
        return result

    async def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        answer = await connection.execute(f"SELECT {SERVER_NOW}")
        [(now,)] = await answer.fetchall()
        return rows.to_instant(now)

    @property
    def pooled(self) -> bool:
        """Return True behind a pooler, where a session belongs to nobody."""
        return bool(self.connections.pooled)

    async def answer(self, connection: Connection, request: Request) -> Answer:
        """Run one statement."""
        statement, values = request
        return await messages.answer(connection, self.text_of(statement), values)

    async def as_text(self, connection: Connection, request: Request) -> str:
        """Return the SQL of a statement, to be sent together with others."""
        statement, values = request
        text = self.text_of(statement)
        if self._clock is not None:  # it has another text at another time
            return messages.inlined(text, values)
        return await self._prepared_statements.execution(connection, text, values)

    def text_of(self, statement: str) -> str:
        """Return a statement with the schema of its tables, and the time."""
        assert self.schema is not None
        text = qualified(statement, self.schema)
        if "{now}" not in text and "{clock}" not in text:
            return text
        if self._clock is None:
            return text.replace("{now}", SERVER_NOW).replace("{clock}", SERVER_CLOCK)
        now = f"{rows.from_instant(self._clock())}::bigint"
        return text.replace("{now}", now).replace("{clock}", now)

    def _note(self, error: BaseException) -> None:
        if is_lost(error) if isinstance(error, Exception) else False:
            self.connections.forget_idle()


class NotBegun(Exception):
    """The connection was lost before anything was committed that must not be done twice."""


def _was_rolled_back(error: Exception) -> bool:
    return isinstance(error, (Conflict, NotBegun)) or may_be_repeated(error)


def _last(error: Exception, shown: str) -> Exception:
    """Return the error for callers, after the last try."""
    if isinstance(error, NotBegun):
        return translated(cast(Exception, error.__cause__), shown)
    if isinstance(error, Conflict):
        return crossed(shown)
    return translated(error, shown)


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except psycopg.Error:
        discard(connection)
