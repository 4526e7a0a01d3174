"""Operations as generators: they ask for statements, and whoever runs them sends these to the server.

So one operation runs on a connection of this engine, and in a transaction of the application, whatever its driver.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from afterwards.core.task import State, Task
from afterwards.engine import Answer
from afterwards.engines.postgres.rows import Row, from_instant, to_instant

R = TypeVar("R")

Operation = Generator[tuple[str, Sequence[Any]], Answer, R]
"""It yields statements with their values, and is sent the answers. It returns the result of a method."""


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

    now: datetime
    opened_with: Sequence[Any] = ()  # what its opening returned after the time
    repeated: int = 0  # how often it was tried before
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
    answer = yield statement, values
    return answer.rows


def change(statement: str, *values: Any) -> Operation[int]:
    """Return how many rows a statement has changed."""
    answer = yield statement, values
    return answer.changed
