"""A call that waits for the commit of a session, and its states."""

from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Protocol

from afterwards.client.client import Client
from afterwards.core.task import NewTask


class UnstoredCall(Protocol):
    """A call that is not stored yet."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def chained(self) -> bool:
        """Return whether it is the successor of the request's previous task."""
        ...

    def new_task(self, client: Client, *, origin: str | None, after: str | None, held: bool, answered: bool) -> NewTask:
        """Make its task; ``answered``: the response has begun, so the request can no longer be refused."""
        ...

    def mark_stored(self, id: str) -> None: ...

    def mark_not_stored(self, reason: str) -> None:
        """Record the reason. It ends the sentence "the task is not stored"."""
        ...


class Standing(Enum):
    """The state of a call that waits for the commit of a session."""

    WAITING = auto()
    INSERTED = auto()  # in the transaction that is being committed
    STORED = auto()  # with that transaction
    RELEASED = auto()  # committed, in another database: it is stored as if there were no session
    ROLLED_BACK = auto()
    CLOSED = auto()  # the transaction ended without a commit
    DROPPED = auto()  # dropped by its request


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

    def __init__(self, call: UnstoredCall, released: Callable[[], None], *, independent: bool = False) -> None:
        self.call = call
        self.released = released  # called after the commit if the tasks are in another database
        self.independent = independent  # stored even if its request fails
        self.watched = False  # by a request, which warns at its end if it was never committed
        self.within: int | None = None  # the innermost open savepoint; it is rolled back with it
        self.clean_up: Callable[[], Coroutine[None, None, None]] | None = None  # deletes files written for it
        self.standing = Standing.WAITING
        call.mark_not_stored(WAITS)

    @property
    def waits(self) -> bool:
        return self.standing in (Standing.WAITING, Standing.INSERTED)

    def become(self, standing: Standing) -> None:
        self.standing = standing
        if standing is Standing.STORED:
            self.call.mark_stored(self.call.id)  # if another task stands for it, this id is its alias
        elif standing in WHY_NOT:
            self.call.mark_not_stored(WHY_NOT[standing])

    def drop(self) -> None:
        """Drop the call: it must no longer be stored."""
        if self.waits:
            self.become(Standing.DROPPED)
