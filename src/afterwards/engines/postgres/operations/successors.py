"""Change the tasks behind a task: they follow its end, or come back with it.

One transaction changes a limited number, so that none takes long. The rest is noted in a table. The engine goes on with
it in further transactions. If its process dies, the maintenance of another process does.

Whoever decides on tasks behind a task has locked that task first. An enqueue locks the task that a new one comes after,
so nothing can be added behind a locked task. A query for the tasks behind therefore sees all of them, if it is a
statement of its own after the lock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from afterwards.core import succession
from afterwards.core.storing import KeyKind, keys_of
from afterwards.core.task import State, Task
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import changing, set_aside
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row, as_json, recordset
from afterwards.engines.postgres.work import Operation, Request, Work, change, fetch

FIRST = -(2**63)
"""Below the ``seq`` of every task. Tasks that came from another engine have one below zero."""

MOST_DECIDED = 200
"""Tasks behind others that one transaction decides on."""

NOTES = """
    SELECT seq, task::text, revived, beyond FROM afterwards_behind ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED
"""

ANY_NOTE = "SELECT EXISTS (SELECT 1 FROM afterwards_behind)"

LOCK_TASKS = f"SELECT {COLUMNS} FROM afterwards_tasks t WHERE t.id = ANY (%s::uuid[]) ORDER BY t.seq FOR NO KEY UPDATE"

NEXT_BEHIND = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t WHERE t.state = 'waiting' AND t.after = ANY (%s::uuid[])
    ORDER BY t.seq LIMIT %s FOR NO KEY UPDATE
"""

# A task comes before those behind it, and these come in the order stored: so the limit cuts off no task between others.
_ALL_BEHIND = f"""
    WITH RECURSIVE behind (task, place) AS (
        (
            SELECT t.id, t.seq FROM afterwards_tasks t WHERE {{condition}} AND t.after = ANY (%s::uuid[]) {{first}}
            ORDER BY t.seq
        )
        UNION
        SELECT next.id, next.seq FROM behind CROSS JOIN LATERAL (
            SELECT t.id, t.seq FROM afterwards_tasks t WHERE {{condition}} AND t.after = behind.task ORDER BY t.seq
        ) AS next
    )
    SELECT {COLUMNS} FROM afterwards_tasks t WHERE t.seq IN (SELECT place FROM behind LIMIT %s) AND {{condition}}
    ORDER BY t.seq FOR NO KEY UPDATE
"""

ALL_BEHIND = _ALL_BEHIND.format(condition="t.state = 'waiting'", first="")

ALL_CANCELLED_BEHIND = _ALL_BEHIND.format(
    condition="t.cause IS NOT NULL AND t.state = 'cancelled'", first="AND t.seq > %s"
)

BEHIND_WHICH_ANY_WAIT = """
    SELECT DISTINCT after::text FROM afterwards_tasks WHERE state = 'waiting' AND after = ANY (%s::uuid[])
"""

LAST_CANCELLED_BEHIND = """
    SELECT after::text, max(seq) FROM afterwards_tasks
    WHERE cause IS NOT NULL AND after = ANY (%s::uuid[]) AND state = 'cancelled' GROUP BY after
"""

TAKEN_KEYS = """
    SELECT unique_key FROM afterwards_tasks WHERE unique_key = ANY (%s::text[]) AND finished_at IS NULL
"""

NOTE_ALL = f"""
    INSERT INTO afterwards_behind (task, revived, beyond)
    SELECT task, revived, beyond FROM {recordset("new", [], task="uuid", revived="boolean", beyond="bigint")}
"""

DELETE_NOTES = "DELETE FROM afterwards_behind WHERE seq = ANY (%s::bigint[])"


def follow(work: Work, ended: Mapping[str, Task | None]) -> Operation[None]:
    """Decide on all tasks behind those that ended, and on those behind them in turn."""
    direct = [id for id, task in ended.items() if task and task.state is State.SUCCEEDED]
    found = [*(yield from fetch(NEXT_BEHIND, direct, room(work) + 1))] if direct else []
    if others := [id for id in ended if id not in {*direct}]:
        found += yield from waiting_behind(work, others)
    yield from _follow(work, ended, (), found)


def next_behind(work: Work, ids: Sequence[str]) -> Request:
    """Return the statement that finds the tasks directly behind those that a statement before it ends."""
    return NEXT_BEHIND, ([*ids], room(work) + 1)


def follow_successes(work: Work, succeeded: Sequence[str], found: Sequence[Row]) -> Operation[None]:
    """Decide on the tasks behind those that succeeded. ``found`` may contain tasks that are behind others."""
    ids = {*succeeded}
    yield from _follow(work, {}, succeeded, [row for row in found if row[_AFTER] in ids])


def _follow(
    work: Work, ended: Mapping[str, Task | None], succeeded: Collection[str], found: Sequence[Row]
) -> Operation[None]:
    if not found:
        return
    some = found[: room(work)]
    waiting = yield from readable(work, some)
    work.catch_up(waiting)
    changed = succession.follow_all(ended, waiting, work.now, succeeded=succeeded)
    yield from put(work, changed)
    if len(found) > len(some):
        yield from note_left(work, [*succeeded, *ended, *(task.id for task in changed if task.state.finished)])


def waiting_behind(work: Work, ids: Collection[str]) -> Operation[list[Row]]:
    """Lock and return the tasks that wait behind these locked ones, at any depth.

    At most one more is returned than may be decided on.
    """
    return (yield from _all_behind(work, ALL_BEHIND, ids))


def cancelled_behind(work: Work, ids: Collection[str], beyond: int = FIRST) -> Operation[list[Row]]:
    """Lock and return the tasks that were cancelled because of these, limited as in ``waiting_behind``."""
    return (yield from _all_behind(work, ALL_CANCELLED_BEHIND, ids, beyond))


def _all_behind(work: Work, statement: str, ids: Collection[str], *others: int) -> Operation[list[Row]]:
    """Search again until a search that sees all locks finds nothing more. Tasks come before those behind them."""
    found: list[Row] = []
    while ids:
        again = [*(yield from fetch(statement, [*ids], *others, room(work) + 1))]
        if len(again) == len(found) or len(again) > room(work):
            return again
        found = again
    return []


def readable(work: Work, found: Iterable[Row]) -> Operation[list[Task]]:
    """Return the tasks that can be read. The others are set aside."""
    tasks = [(row, parsing.to_task(row)) for row in found]
    yield from set_aside.put(work, [(row, task.unreadable) for row, task in tasks if task.unreadable])
    return [task for _, task in tasks if not task.unreadable]


def taken_keys(tasks: Iterable[Task]) -> Operation[set[str]]:
    """Return those of the tasks' unique keys that unfinished tasks have."""
    keys = {key.text for task in tasks for key in keys_of(task) if key.kind is KeyKind.UNIQUE}
    return {key for [key] in (yield from fetch(TAKEN_KEYS, [*keys]))} if keys else set()


def put(work: Work, changed: Sequence[Task]) -> Operation[None]:
    """Store the decisions on tasks behind others."""
    yield from changing.put_all(work, changed)
    work.decided += len(changed)


def note_left(work: Work, ended: Sequence[str]) -> Operation[None]:
    """Note which of the tasks that ended still have tasks waiting behind them."""
    left = yield from fetch(BEHIND_WHICH_ANY_WAIT, [*ended])
    yield from _note(work, [{"task": id, "revived": False, "beyond": FIRST} for [id] in left])


def note_left_cancelled(
    work: Work, running_again: Iterable[Task], looked_at: Iterable[Row], beyond: int = FIRST
) -> Operation[None]:
    """Note the tasks because of which more tasks are cancelled than were looked at."""
    last = {task.id: beyond if number == 0 else FIRST for number, task in enumerate(running_again)}
    for row in looked_at:
        after = row[_AFTER]
        if after in last:
            last[after] = max(last[after], row[SEQ])
    left = yield from fetch(LAST_CANCELLED_BEHIND, [*last])
    notes = [{"task": id, "revived": True, "beyond": last[id]} for id, seq in left if seq > last[id]]
    yield from _note(work, notes)


def go_on(work: Work) -> Operation[bool]:
    """Decide on some of the tasks behind noted ones. Returns True if any are left."""
    notes = yield from fetch(NOTES, MOST_DECIDED)
    found = yield from fetch(LOCK_TASKS, [*{id for _, id, _, _ in notes}])
    tasks = {task.id: task for task in map(parsing.to_task, found)}
    ended: dict[str, Task | None] = {}
    done = []
    for seq, id, revived, beyond in notes:
        if not room(work):
            break
        done.append(seq)
        before = tasks.get(id)
        if before is None:
            ended[id] = None
        elif revived:
            yield from _revive(work, before, beyond)
        elif before.state.finished:  # otherwise it runs again, and they wait for it
            ended[id] = before
    if not done:  # another transaction is at work on what is left, and goes on with it
        return (yield from is_any_left())
    yield from change(DELETE_NOTES, done)
    if ended:
        yield from follow(work, ended)
    work.left_behind = yield from is_any_left()
    return work.left_behind


def is_any_left() -> Operation[bool]:
    """Return True if any task is noted."""
    [(left,)] = yield from fetch(ANY_NOTE)
    return bool(left)


def room(work: Work) -> int:
    """Return how many tasks behind others this transaction may still decide on."""
    return max(0, MOST_DECIDED - work.decided)


def _revive(work: Work, running_again: Task, beyond: int) -> Operation[None]:
    """Bring back tasks that were cancelled because of one that runs again, and those cancelled because of these."""
    cancelled = yield from cancelled_behind(work, [running_again.id], beyond)
    some = cancelled[: room(work)]
    tasks = [task for task in map(parsing.to_task, some) if not task.unreadable]
    changed = succession.revive_all([running_again], tasks, (yield from taken_keys(tasks)), work.now)
    yield from put(work, changed)
    work.decided += len(some) - len(changed)
    if len(cancelled) > len(some):
        yield from note_left_cancelled(work, [running_again, *changed], some, beyond)


def _note(work: Work, notes: Sequence[Mapping[str, object]]) -> Operation[None]:
    if notes:
        yield from change(NOTE_ALL, as_json(notes))
        work.left_behind = True


_AFTER = [*rows.TYPES].index("after")
