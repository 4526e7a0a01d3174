"""Operations as generators: they ask for statements, and whoever runs them sends these to the server.

So one operation runs on a connection of this engine, and in a transaction of the application, whatever its driver.

Each request is a round trip, and while an event loop is busy, each costs the wait for Python's interpreter lock. So an
operation asks for several statements at once if none depends on another's answer. An operation whose first statements
do not need the time may ask for them before its transaction has begun: they are sent together with its beginning.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from afterwards.core.task import State, Task
from afterwards.engine import Answer
from afterwards.engines.postgres.rows import Row, from_instant, to_instant

R = TypeVar("R")

Request = tuple[str, Sequence[Any]]
"""A statement and its values."""

Operation = Generator[Sequence[Request], Sequence[Answer], R]
"""It yields statements that can be sent at once, and is sent their answers. It returns the result of a method."""

NEVER = datetime.min.replace(tzinfo=UTC)
"""The time of an operation that does not look at it, or whose transaction has not begun."""


LONGEST_WAIT = timedelta(minutes=1)


class Conflict(Exception):
    """Another transaction has stored rows that this one does not see: it has to be repeated."""


class Aside(NamedTuple):
    """A task that was set aside."""

    id: str
    name: str
    reason: str


@dataclass(slots=True)
class Work:
    """One transaction: its time, and what is to be done after its commit."""

    now: datetime = NEVER
    opened_with: Sequence[Any] = ()  # what its opening returned after the time
    repeated: int = 0  # how often it was tried before
    is_last: bool = False  # the next statements are the last ones: the commit is sent with them
    is_repeatable: bool = False  # although it may have been committed
    leased: list[Task] = field(default_factory=list)  # to be given back if the answer to the commit is lost
    joined: bool = False  # in a transaction of the application, which may stay open for long
    queued: bool = False  # some task may be claimed, or some scheduled task is due earlier
    passed_by: bool = False  # some tasks could not be taken, because other transactions had locked them
    set_aside: list[Aside] = field(default_factory=list)
    room_at: datetime | None = None  # when a used-up rate lets another task start
    decided: int = 0  # tasks behind others that were decided on
    left_behind: bool = False  # some tasks behind others are not decided on yet

    @property
    def instant(self) -> int:
        """``now`` in microseconds."""
        return from_instant(self.now)

    def after(self, span: timedelta) -> int:
        """Return the instant so long after now, in microseconds."""
        return from_instant(self.now + span)

    def note_locked(self, tasks: Iterable[Task]) -> None:
        """Have workers told when these locked tasks are free again: a claim passes locked tasks by."""
        self.queued |= any(task.state is State.QUEUED and task.set_aside is None for task in tasks)

    def have_waited(self, until: Iterable[int]) -> None:
        """Go on at the latest of these instants, in microseconds: it has waited for locks until then."""
        self.now = max([self.now, *map(to_instant, until)])

    def catch_up(self, tasks: Iterable[Task]) -> None:
        """Note that it is at least as late as when these tasks were stored.

        A transaction that waited for a lock may find tasks that were stored after it had begun. Longer waits end with
        an error; a larger difference is a clock that was set back.
        """
        latest = max((task.created_at for task in tasks), default=self.now)
        if self.now < latest < self.now + LONGEST_WAIT:
            self.now = latest


def fetch(statement: str, *values: Any) -> Operation[Sequence[Row]]:
    """Return the rows of a statement."""
    [answer] = yield [(statement, values)]
    return answer.rows


def fetch_all(*requests: Request) -> Operation[Sequence[Sequence[Row]]]:
    """Return the rows of several statements, which are sent at once."""
    answers = yield requests
    return [answer.rows for answer in answers]


def change(statement: str, *values: Any) -> Operation[int]:
    """Return how many rows a statement has changed."""
    [answer] = yield [(statement, values)]
    return answer.changed


def begin(work: Work) -> Operation[None]:
    """Begin the transaction, if no statement has begun it yet, so that it has its time."""
    if work.now is NEVER:
        yield ()
