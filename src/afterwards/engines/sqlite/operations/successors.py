"""The tasks behind a task: they follow its end, or come back with it. So many at a time that no transaction takes long.

What one transaction does not get to is noted in the file. The writer goes on with it, beside what others ask for; if
its process dies, the upkeep of another one does.
"""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from afterwards.core import lifecycle
from afterwards.core.task import State, Task
from afterwards.engines.sqlite import rows, statements
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import duplicates, reading, set_aside

MOST_DECIDED = 200
"""Tasks behind others that one transaction decides on."""

Ended = tuple[str, Callable[[Task, datetime], Task]]
"""The id of a task that ended, and what becomes of a task that waits for it."""


def succeeded(id: str) -> Ended:
    return id, lifecycle.proceed


def ended(task: Task) -> Ended:
    return task.id, partial(_after, task)


def follow(connection: Connection, several: Iterable[Ended]) -> None:
    """Decide on the tasks behind those that ended, and on those behind them in turn."""
    if not connection.look().waiting:
        return
    deciding = deque(several)
    while deciding and (room := _room(connection)):
        id, decide = deciding[0]
        found = connection.execute(statements.WAITING_BEHIND, (rows.key(id), room)).fetchall()
        for row in found:
            task = reading.task_of(connection, row)
            if task.unreadable:
                set_aside.put(connection, row, task.unreadable)
                continue
            task = decide(task, connection.now)
            _update(connection, task)
            if task.state.finished:
                deciding.append(ended(task))
        if len(found) < room:
            deciding.popleft()
    for id, _ in deciding:
        if connection.execute(statements.WAITING_BEHIND, (rows.key(id), 1)).fetchone():
            _note(connection, id)


def revive(connection: Connection, task: Task, beyond: int = 0) -> None:
    """Bring back what was cancelled for the sake of a task that runs again, and what was for theirs."""
    reviving = deque([(task, beyond)])
    while reviving and (room := _room(connection)):
        before, beyond = reviving[0]
        found = connection.execute(statements.CANCELLED_BEHIND, (rows.key(before.id), beyond, room)).fetchall()
        for row in found:
            behind = reading.task_of(connection, row)
            if behind.unreadable or not duplicates.is_free(connection, behind):
                connection.decided += 1
            else:
                # Where this comes late, the task before it may have ended meanwhile.
                revived = lifecycle.follow(lifecycle.revive(behind), before, connection.now)
                _update(connection, revived)
                reviving.append((revived, 0))
        if len(found) < room:
            reviving.popleft()
        else:
            reviving[0] = before, found[-1][-1]
    for before, beyond in reviving:
        if connection.execute(statements.CANCELLED_BEHIND, (rows.key(before.id), beyond, 1)).fetchone():
            _note(connection, before.id, revived=True, beyond=beyond)


def is_any_left(connection: Connection) -> bool:
    """Whether anything is noted."""
    return connection.execute(statements.ANY_BEHIND).fetchone() is not None


def go_on(connection: Connection) -> bool:
    """Decide on some of what is noted. Returns whether anything is left."""
    for seq, key, revived, beyond in connection.execute(statements.BEHIND, (MOST_DECIDED,)).fetchall():
        if not _room(connection):
            break
        connection.execute(statements.DELETE_BEHIND, (seq,))
        if not isinstance(key, bytes):  # damaged: it names no task
            continue
        row = connection.execute(statements.GET, (bytearray(key),)).fetchone()
        before = row and reading.task_of(connection, row)
        if before is None:
            follow(connection, [(rows.to_id(key), partial(_after, None))])
        elif revived:
            revive(connection, before, beyond)
        elif before.state.finished:  # else it runs again, and they wait for that
            follow(connection, [ended(before)])
    connection.left_behind = is_any_left(connection)
    return connection.left_behind


def _after(before: Task | None, task: Task, now: datetime) -> Task:
    return lifecycle.follow(task, before, now)


def _room(connection: Connection) -> int:
    return max(0, MOST_DECIDED - connection.decided)


def _update(connection: Connection, task: Task) -> None:
    connection.execute(statements.UPDATE, rows.changed(task, connection.instant))
    connection.queued |= task.state is State.QUEUED
    connection.decided += 1


def _note(connection: Connection, id: str, *, revived: bool = False, beyond: int = 0) -> None:
    connection.execute(statements.NOTE_BEHIND, (rows.key(id), int(revived), beyond))
    connection.left_behind = True
