"""Which tasks are not stored, because there shall be no other one like one that is there."""

from collections.abc import Iterator
from dataclasses import replace

from afterwards.core.task import NewTask, Task
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import reading

UNFINISHED_LIKE = "SELECT id FROM afterwards_tasks WHERE unique_key = ? AND finished_at IS NULL"

IDEMPOTENT_LIKE = "SELECT id FROM afterwards_tasks WHERE idempotency_key = ?"

INSERT_ALIAS = "INSERT INTO afterwards_aliases (id, task) VALUES (?, ?)"


class Twins:
    """The tasks that answer for some of those that one call wants to store."""

    def __init__(self, connection: Connection, stored: dict[str, Task]) -> None:
        connection.flush()  # tasks of others in this transaction
        self.answered: dict[str, str] = {}  # the id of a call, and of the task that stands for it
        self._after: dict[str, str | None] = {}  # what those come after that are answered
        self._connection = connection
        self._stored = stored
        self._new: dict[tuple[str, str], str] = {}

    def in_line(self, new: NewTask) -> NewTask:
        """The task, behind what it comes after now that some are not stored."""
        before = new.after
        while new.chained and before is not None and before in self._after:
            before = self._after[before]
        return replace(new, after=before and self.answered.get(before, before))

    def answers(self, new: NewTask) -> bool:
        """Whether a task that is stored, or about to be, stands for this one; it is among the stored, afterwards."""
        for statement, key in _likes(new):
            twin = self._stored.get(self._new.get((statement, key), ""))
            if twin is None or (statement == UNFINISHED_LIKE and twin.state.finished):
                twin = self._find(statement, key)
            if twin:
                self.answered[new.id], self._after[new.id] = twin.id, new.after
                self._stored[twin.id] = twin
                return True
        self._new |= {like: new.id for like in _likes(new)}
        return False

    def remember(self) -> None:
        """From now on the ids of the calls stand for those that answered."""
        aliases = [(rows.key_to_store(id), rows.key(twin)) for id, twin in self.answered.items()]
        self._connection.executemany(INSERT_ALIAS, aliases)

    def _find(self, statement: str, key: str) -> Task | None:
        found = self._connection.execute(statement, (key,)).fetchone()
        return reading.get(self._connection, [rows.to_id(found[0])])[0] if found else None


def is_free(connection: Connection, task: Task) -> bool:
    """Whether a finished task may come back: no other one has its unique key now."""
    if task.unique_key is None:
        return True
    return connection.execute(UNFINISHED_LIKE, (task.unique_key,)).fetchone() is None


def _likes(new: NewTask) -> Iterator[tuple[str, str]]:
    """The statements that find its twin, and their key."""
    if new.idempotency_key is not None:
        yield IDEMPOTENT_LIKE, new.idempotency_key
    if new.unique_key is not None:
        yield UNFINISHED_LIKE, new.unique_key
