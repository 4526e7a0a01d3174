"""Change the tasks behind a task: they follow its end, or come back with it.

One transaction changes a limited number, so that none takes long. The rest is noted in the file. The writer goes on
with the rest in between other requests. If its process dies, the maintenance of another process does.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from afterwards.core import succession
from afterwards.core.storing import KeyKind, keys_of
from afterwards.core.task import State, Task
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.operation import ConditionalOperation, Turn
from afterwards.engines.sqlite.operations import changing, reading, set_aside

FIRST = -(2**63)
"""Below the ``seq`` of every task. Tasks that came from another engine may have one below zero."""

MOST_DECIDED = 200
"""Tasks behind others that one transaction decides on."""

BEHIND = "SELECT seq, task, revived, beyond FROM afterwards_behind ORDER BY seq LIMIT ?"

ANY_BEHIND = "SELECT 1 FROM afterwards_behind LIMIT 1"

NEXT_BEHIND = f"""
    SELECT {COLUMNS} FROM afterwards_tasks WHERE state = 'waiting' AND after IN ({{places}}) LIMIT ?
"""

# A task comes before those behind it, so that the last limit cuts off no task between two others. The first limit keeps
# each piece from reading all tasks directly behind these. The index has their order: `ORDER BY seq` would sort them.
ALL_BEHIND = f"""
    WITH RECURSIVE behind (task, place) AS (
        SELECT * FROM (
            SELECT id, seq FROM afterwards_tasks WHERE state = 'waiting' AND after IN ({{places}})
            ORDER BY after, seq LIMIT ?
        )
        UNION
        SELECT id, seq FROM behind CROSS JOIN afterwards_tasks ON state = 'waiting' AND after = task
        LIMIT ?
    )
    SELECT {COLUMNS} FROM behind CROSS JOIN afterwards_tasks ON seq = place
"""

BEHIND_WHICH_ANY_WAIT = """
    WITH ended (task) AS (VALUES {rows})
    SELECT task FROM ended WHERE EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting' AND after = task)
"""

ALL_CANCELLED_BEHIND = f"""
    WITH RECURSIVE behind (task, place) AS (
        SELECT * FROM (
            SELECT id, seq FROM afterwards_tasks INDEXED BY afterwards_cancelled_for_another
            WHERE cause IS NOT NULL AND after IN ({{places}}) AND seq > ? AND state = 'cancelled'
            ORDER BY after, seq LIMIT ?
        )
        UNION
        SELECT id, seq FROM behind CROSS JOIN afterwards_tasks INDEXED BY afterwards_cancelled_for_another
        ON cause IS NOT NULL AND after = task AND state = 'cancelled'
        LIMIT ?
    )
    SELECT {COLUMNS} FROM behind CROSS JOIN afterwards_tasks ON seq = place
"""

LAST_CANCELLED_BEHIND = """
    WITH again (task) AS (VALUES {rows})
    SELECT task, (
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_cancelled_for_another
        WHERE cause IS NOT NULL AND after = task AND state = 'cancelled' ORDER BY seq DESC LIMIT 1
    )
    FROM again
"""

TAKEN_KEYS = "SELECT unique_key FROM afterwards_tasks WHERE unique_key IN ({places}) AND finished_at IS NULL"

NOTE_ALL_BEHIND = "INSERT INTO afterwards_behind (task, revived, beyond) VALUES {rows}"

DELETE_NOTES = "DELETE FROM afterwards_behind WHERE seq IN ({places})"


def follow(connection: Connection, ended: Mapping[str, Task | None], *, succeeded: Collection[str] = ()) -> None:
    """Decide on all tasks behind those that ended, and on those behind them in turn; of successes, ids suffice."""
    if not connection.look().waiting:
        return
    direct = [*succeeded, *(id for id, task in ended.items() if task and task.state is State.SUCCEEDED)]
    waiting = _found(connection, NEXT_BEHIND, direct) if direct else []
    if len(direct) < len(ended) + len(succeeded):
        waiting += waiting_behind(connection, ended.keys() - direct)
    some = waiting[: room(connection)]
    changed = succession.follow_all(ended, readable(connection, some), connection.now, succeeded=succeeded)
    put(connection, changed)
    if len(waiting) > len(some):
        note_left(connection, [*succeeded, *ended, *(task.id for task in changed if task.state.finished)])


def waiting_behind(connection: Connection, ids: Collection[str]) -> list[reading.Found]:
    """Return the tasks that wait behind these, at any depth, at most one more than may be decided on."""
    return _found(connection, ALL_BEHIND, ids, room(connection) + 1) if ids and connection.look().waiting else []


def readable(connection: Connection, found: Iterable[reading.Found]) -> list[Task]:
    """Return the tasks that can be read. The others are set aside."""
    tasks = []
    for row, task in found:
        if task.unreadable:
            set_aside.put(connection, row, task.unreadable)
        else:
            tasks.append(task)
    return tasks


def cancelled_behind(connection: Connection, ids: Iterable[str], beyond: int = FIRST) -> list[reading.Found]:
    """Return the tasks that were cancelled because of these, limited as in ``waiting_behind``."""
    return _found(connection, ALL_CANCELLED_BEHIND, ids, beyond, room(connection) + 1)


def taken_keys(connection: Connection, tasks: Iterable[Task]) -> set[str]:
    """Return those of the tasks' unique keys that unfinished tasks have."""
    keys = {key.text for task in tasks for key in keys_of(task) if key.kind is KeyKind.UNIQUE}
    return {str(key) for [key] in many.select(connection, TAKEN_KEYS, keys)}


def put(connection: Connection, changed: Sequence[Task]) -> None:
    """Store the decisions on tasks behind others."""
    if changed:
        changing.put_all(connection, changed)
    connection.decided += len(changed)


def note_left(connection: Connection, ended: Sequence[str]) -> None:
    """Note which of the tasks that ended still have tasks waiting behind them."""
    left = many.select_by_rows(connection, BEHIND_WHICH_ANY_WAIT, [(rows.key(id),) for id in ended])
    _note(connection, [(rows.raw(key), 0, FIRST) for key in dict.fromkeys(key for [key] in left)])


def revive(
    connection: Connection, running_again: Sequence[Task], beyond: int = FIRST, *, cancelled: Sequence[reading.Found]
) -> None:
    """Bring back tasks that were cancelled because of tasks that run again, and those cancelled because of these."""
    some = cancelled[: room(connection)]
    tasks = [task for _, task in some if not task.unreadable]
    changed = succession.revive_all(running_again, tasks, taken_keys(connection, tasks), connection.now)
    put(connection, changed)
    connection.decided += len(some) - len(changed)
    if len(cancelled) > len(some):
        note_left_cancelled(connection, [*running_again, *changed], some, beyond)


def note_left_cancelled(
    connection: Connection, running_again: Iterable[Task], looked_at: Iterable[reading.Found], beyond: int = FIRST
) -> None:
    """Note the tasks because of which more tasks are cancelled than were looked at."""
    last = {task.id: beyond if number == 0 else FIRST for number, task in enumerate(running_again)}
    for row, task in looked_at:
        if task.after in last:
            last[task.after] = max(last[task.after], row[-1])
    left = many.select_by_rows(connection, LAST_CANCELLED_BEHIND, [(rows.key(id),) for id in last])
    by_id = {rows.to_id(key): seq for key, seq in left if seq is not None}
    _note(connection, [(rows.key(id), 1, last[id]) for id, seq in by_id.items() if seq > last[id]])


def is_any_left(connection: Connection) -> bool:
    """Return True if any task is noted."""
    return connection.execute(ANY_BEHIND).fetchone() is not None


class GoOn(ConditionalOperation[bool]):
    """Decide on some of the tasks behind noted ones. Answers True if any are left."""

    turn = Turn.STORE

    def __init__(self) -> None:
        super().__init__(go_on, needed=is_any_left, otherwise=False)


def go_on(connection: Connection) -> bool:
    """Decide on some of the tasks behind noted ones. Returns True if any are left."""
    notes = connection.execute(BEHIND, (MOST_DECIDED,)).fetchall()
    ids = {rows.to_id(key): key for _, key, _, _ in notes if isinstance(key, bytes)}  # else damaged: it names no task
    found = {id: task for id, (_, task) in reading.found(connection, ids).items()}
    ended: dict[str, Task | None] = {}
    done = []
    for seq, key, revived, beyond in notes:
        if not room(connection):
            break
        done.append(seq)
        if not isinstance(key, bytes):
            continue
        before = found.get(rows.to_id(key))
        if before is None:
            ended[rows.to_id(key)] = None
        elif revived:
            revive(connection, [before], beyond, cancelled=cancelled_behind(connection, [before.id], beyond))
        elif before.state.finished:  # otherwise it runs again, and they wait for it
            ended[before.id] = before
    many.change(connection, DELETE_NOTES, done)
    if ended:
        follow(connection, ended)
    connection.left_behind = is_any_left(connection)
    return connection.left_behind


def room(connection: Connection) -> int:
    """Return how many tasks behind others this transaction may still decide on."""
    return max(0, MOST_DECIDED - connection.decided)


def _found(connection: Connection, statement: str, ids: Iterable[str], *others: int) -> list[reading.Found]:
    """Return at most one row more than may be decided on."""
    keys = [rows.key(id) for id in ids]
    found = many.select(connection, statement, keys, *others, room(connection) + 1)
    return [(row, reading.task_of(connection, row)) for row in found]


def _note(connection: Connection, notes: Sequence[tuple[bytearray, int, int]]) -> None:
    many.insert(connection, NOTE_ALL_BEHIND, notes)
    connection.left_behind |= bool(notes)
