"""Run operations on the server: one transaction for each, repeated if it crosses another one."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import psycopg

from afterwards.core.errors import EngineUnavailable
from afterwards.engine import Answer
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.connections import SETTINGS, Connection, Connections, discard
from afterwards.engines.postgres.io.errors import is_lost, may_be_repeated, translated
from afterwards.engines.postgres.io.schema import Identity, prepare, qualified
from afterwards.engines.postgres.work import Conflict, Operation, Work

R = TypeVar("R")

Make = Callable[[Work], Operation[R]]
"""Start an operation in a transaction."""

Spawn = Callable[[Coroutine[Any, Any, None]], None]
"""Start a task in the background."""

MOST_TRIES = 8
"""How often a transaction that crosses others is tried."""

PATIENCE = 5.0
"""Seconds after which a call is answered with EngineUnavailable, whatever the server does."""

SERVER_NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"

SERVER_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The time at this place of a statement, which may have waited for a lock."""

OPENING = "SELECT {now}"
"""The SQL with which a transaction begins. Its last statement returns one row, with the time."""

NEVER = datetime.min.replace(tzinfo=UTC)
"""The time of an operation that does not look at it."""


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

    async def transact(self, make: Make[R], *, opening: str = OPENING) -> R:
        """Run an operation in a transaction. Raises EngineUnavailable, EngineError, or what the operation raises."""
        return await self._bounded(self._transact(make, opening))

    async def read(self, make: Make[R]) -> R:
        """Run an operation whose statements need no transaction."""
        return await self._bounded(self._read(make, is_timed=True))

    async def ask(self, question: Callable[[], Operation[R]]) -> R:
        """Run an operation whose statements need no transaction, and no time but ``{now}``. It is one trip shorter."""
        return await self._bounded(self._read(lambda _: question(), is_timed=False))

    async def _bounded(self, call: Coroutine[Any, Any, R]) -> R:
        """Run a call so long as its callers can wait."""
        task, is_late = asyncio.current_task(), False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            self.connections.forget_idle()
            if task and not self.connections.cut_off(task):  # it waits for a connection
                task.cancel()

        timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)
        try:
            return await call
        except (asyncio.CancelledError, EngineUnavailable) as error:
            if not is_late:
                raise
            if task and isinstance(error, asyncio.CancelledError):
                task.uncancel()
            shown = self._address.shown
            raise EngineUnavailable(f"{shown} has not answered for {PATIENCE:g} seconds") from error
        finally:
            timer.cancel()

    async def _transact(self, make: Make[R], opening: str) -> R:
        tries, until = 0, time.monotonic() + PATIENCE
        while True:
            try:
                await self.prepare()
                async with self.connections.lent() as connection:
                    work, result = await self._once(connection, make, opening, tries)
            except Exception as error:
                tries += 1
                self._note(error)
                if tries < MOST_TRIES and _was_rolled_back(error) and time.monotonic() < until:
                    await asyncio.sleep(0.001 * tries)
                    continue
                raise _last(error, self._address.shown) from error
            self._after_commit(work)
            return result

    async def _once(self, connection: Connection, make: Make[R], opening: str, tries: int) -> tuple[Work, R]:
        try:
            work = await self._begin(connection, opening)
        except psycopg.OperationalError as error:
            raise NotBegun from error
        work.repeated = tries
        try:
            result = await self._run(connection, make(work))
        except Exception as error:
            await _roll_back(connection)
            if is_lost(error) and tries == 0:
                raise NotBegun from error  # nothing of it was committed
            raise
        await connection.execute("COMMIT")
        return work, result

    async def _begin(self, connection: Connection, opening: str = OPENING) -> Work:
        """Begin a transaction."""
        begin = "BEGIN"
        if self.connections.pooled:  # a session belongs to nobody there
            begin += "".join(f"; SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items())
        answer = await connection.execute(f"{begin}; {self.text_of(opening)}")
        while answer.nextset():
            pass
        [(now, *opened_with)] = await answer.fetchall()
        return Work(rows.to_instant(now), opened_with=opened_with)

    async def _read(self, make: Make[R], *, is_timed: bool) -> R:
        for last in (False, True):
            try:
                await self.prepare()
                async with self.connections.lent() as connection:
                    if self.connections.pooled:  # settings are those of a transaction there
                        return await self._read_in_transaction(connection, make)
                    work = Work(await self._now(connection) if is_timed else NEVER)
                    return await self._run(connection, make(work))
            except Exception as error:
                self._note(error)
                if last or not is_lost(error):
                    raise _last(error, self._address.shown) from error
        raise AssertionError

    async def _read_in_transaction(self, connection: Connection, make: Make[R]) -> R:
        result = await self._run(connection, make(await self._begin(connection)))
        await connection.execute("COMMIT")
        return result

    async def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        answer = await connection.execute(f"SELECT {SERVER_NOW}")
        [(now,)] = await answer.fetchall()
        return rows.to_instant(now)

    async def _run(self, connection: Connection, operation: Operation[R]) -> R:
        try:
            statement, values = next(operation)
            while True:
                answer = await self._execute(connection, statement, values)
                statement, values = operation.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result

    async def _execute(self, connection: Connection, statement: str, values: Sequence[Any]) -> Answer:
        text = self.text_of(statement)
        cursor = await connection.execute(text, values or None)
        return Answer(await cursor.fetchall() if cursor.description else [], cursor.rowcount)

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
    """The connection was lost before anything was committed."""


def _was_rolled_back(error: Exception) -> bool:
    return isinstance(error, (Conflict, NotBegun)) or may_be_repeated(error)


def _last(error: Exception, shown: str) -> Exception:
    """Return the error for callers, after the last try."""
    if isinstance(error, NotBegun):
        return translated(cast(Exception, error.__cause__), shown)
    if isinstance(error, Conflict):
        return EngineUnavailable(f"{shown}: other transactions store the same tasks or keys all the time")
    return translated(error, shown)


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except psycopg.Error:
        discard(connection)
