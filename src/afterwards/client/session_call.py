"""A call that waits for the commit of a session, and what becomes of it."""

from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Protocol

from afterwards.client.client import Client
from afterwards.core.task import NewTask


class Call(Protocol):
    """A call that is not stored yet."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def chained(self) -> bool:
        """Whether it comes behind the request's task before it."""
        ...

    def new_task(self, client: Client, *, origin: str | None, after: str | None, held: bool, answered: bool) -> NewTask:
        """Make its task; ``answered``: the response has begun, so that nobody can be refused any more."""
        ...

    def mark_stored(self, id: str) -> None: ...

    def mark_not_stored(self, reason: str) -> None:
        """Say why, as the end of the sentence "the task is not stored"."""
        ...


class Standing(Enum):
    """The state of a call that waits for the commit of a session."""

    WAITING = auto()
    INSERTED = auto()  # in the transaction that is being committed
    STORED = auto()  # with it
    RELEASED = auto()  # committed, in another database: it is stored as if there were no session
    ROLLED_BACK = auto()
    CLOSED = auto()  # the transaction ended without a commit
    DROPPED = auto()  # by its request


UNDECIDED = frozenset({Standing.WAITING, Standing.INSERTED, Standing.CLOSED})
"""A call still in one of these states at the end of its request was never committed."""

WAITS = " yet: it is stored when the session that it was added with commits"

WHY_NOT = {
    Standing.ROLLED_BACK: ": it was rolled back with the session that it was added with",
    Standing.CLOSED: ": the session that it was added with was closed without a commit",
    Standing.DROPPED: ": its request ended before the session that it was added with was committed",
}


class Joining:
    """A call that is stored when its session commits. It holds no session."""

    def __init__(self, call: Call, released: Callable[[], None], *, independent: bool = False) -> None:
        self.call = call
        self.released = released  # told of the commit when the tasks are in another database
        self.independent = independent  # of whether its request goes well
        self.watched = False  # by a request, which tells at its end of what was never committed
        self.within: int | None = None  # the innermost savepoint that is open, with which it is rolled back
        self.clean_up: Callable[[], Coroutine[None, None, None]] | None = None  # of what was written for it before
        self.standing = Standing.WAITING
        call.mark_not_stored(WAITS)

    @property
    def waits(self) -> bool:
        return self.standing in (Standing.WAITING, Standing.INSERTED)

    def become(self, standing: Standing) -> None:
        self.standing = standing
        if standing is Standing.STORED:
            self.call.mark_stored(self.call.id)  # if another task answers for it, that one has this id, too
        elif standing in WHY_NOT:
            self.call.mark_not_stored(WHY_NOT[standing])

    def drop(self) -> None:
        """Nobody shall store it any more."""
        if self.waits:
            self.become(Standing.DROPPED)
