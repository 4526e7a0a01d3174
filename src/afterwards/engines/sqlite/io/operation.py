"""Operations for a connection's thread: a class for each kind."""

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar, Generic, TypeVar

from afterwards.engines.sqlite.io.connection import Connection

R = TypeVar("R")


class Turn(IntEnum):
    """The order of operations that share a transaction."""

    CHANGE = 0  # may queue tasks
    CLAIM = 1
    STORE = 2  # new tasks may be leased if nothing is left to claim


class Operation(Generic[R]):
    """One caller's part of a transaction: the function, the waiting caller, and the result."""

    __slots__ = ("asked_at", "error", "future", "result", "waits_on")

    turn: ClassVar[Turn] = Turn.CHANGE
    only_adds: ClassVar[bool] = False  # needs no rows that other operations of its transaction have not written yet
    shares_commit: ClassVar[bool] = False  # may wait a little for others to commit with
    may_be_needless: ClassVar[bool] = False  # is asked first, outside a transaction, whether there is anything to do

    def __init__(self) -> None:
        self.future: asyncio.Future[R] | None = None  # None: nobody waits
        self.result: Any = None  # the answer; before the run, the answer where the operation is needless
        self.error: Exception | None = None
        self.asked_at = time.monotonic()
        self.waits_on = False  # it could not be done yet, and is to be tried again

    def run(self, connection: Connection) -> R:
        """Run the operation, within a transaction."""
        raise NotImplementedError

    def is_needed(self, connection: Connection) -> bool:
        """Return False if there is nothing to do. Asked outside a transaction."""
        return True

    @property
    def abandoned(self) -> bool:
        """Return True if it need not be run, because nobody waits for the answer any more."""
        return False

    def take_back(self, result: R) -> None:
        """Undo a result for which nobody waits any more."""

    def answer(self) -> None:
        """Deliver the answer. Called on the event loop of the future."""
        if self.future is None or self.future.done():
            self.give_up()
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)

    def give_up(self) -> None:
        """Take back the result, because nobody waits for the answer."""
        if self.error is None:
            self.take_back(self.result)


class FunctionOperation(Operation[R]):
    """Run a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Connection], R]) -> None:
        super().__init__()
        self._function = function

    def run(self, connection: Connection) -> R:
        return self._function(connection)


class ConditionalOperation(FunctionOperation[R]):
    """Run a function, unless a check finds that there is nothing to do."""

    __slots__ = ("_needed",)

    may_be_needless = True

    def __init__(
        self, function: Callable[[Connection], R], *, needed: Callable[[Connection], bool], otherwise: R
    ) -> None:
        super().__init__(function)
        self._needed = needed
        self.result = otherwise

    def is_needed(self, connection: Connection) -> bool:
        return self._needed(connection)
