"""Take over records that another engine has handed over. One caller after the other has its turn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afterwards.core import limits, moving, schedule, storing
from afterwards.core.claim import NOTHING_PAUSED
from afterwards.core.moving import Arrived, Batch, MovedChunk, MovedTask
from afterwards.core.schedule import StoredSchedule
from afterwards.core.storing import Key, KeyKind, Loaded
from afterwards.core.task import Lease, LogLine, Task
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import changing, files, limiting, pausing, scheduling, tallying
from afterwards.engines.postgres.operations.storing import ALIASES, INSERT_ALIASES, LOAD, lock
from afterwards.engines.postgres.operations.successors import follow
from afterwards.engines.postgres.rows import TYPES, as_json, known_ids, recordset
from afterwards.engines.postgres.work import Conflict, Operation, Work, change, fetch

Row = Mapping[str, Any]

TAKE_OVER = "INSERT INTO afterwards_taken_over (batch) VALUES (%s::uuid) ON CONFLICT DO NOTHING"

PUT_SCHEDULES = f"""
    INSERT INTO afterwards_schedules (name, expression, after, last_fire, paused)
    SELECT name, expression, after, last_fire, paused
    FROM {
    recordset("new", ["name"], expression="text", after="bigint", last_fire="bigint", paused="boolean")
} ORDER BY name
    ON CONFLICT (name) DO UPDATE SET
        expression = excluded.expression, after = excluded.after, last_fire = excluded.last_fire,
        paused = excluded.paused
"""

PUT_FILES = f"""
    INSERT INTO afterwards_files (id, task, until)
    SELECT id, task, until FROM {recordset("new", ["id"], task="uuid", until="bigint")} ORDER BY id
    ON CONFLICT DO NOTHING
"""

# Never above zero: there, others may store tasks that this transaction does not see yet.
LOWEST = "SELECT least(min(seq), 0) FROM afterwards_tasks"

INSERT_MOVED = f"""
    INSERT INTO afterwards_tasks ({", ".join(TYPES)}) OVERRIDING SYSTEM VALUE
    SELECT {", ".join(TYPES)} FROM {recordset("new", TYPES)} ON CONFLICT DO NOTHING
"""

# The places come from the table's own sequence: who inserts needs no right to use that by itself.
_WITHOUT_PLACE = [name for name in TYPES if name != "seq"]

INSERT_LAST = f"""
    INSERT INTO afterwards_tasks ({", ".join(_WITHOUT_PLACE)})
    SELECT {", ".join(_WITHOUT_PLACE)} FROM {recordset("new", _WITHOUT_PLACE)} ON CONFLICT DO NOTHING
"""


def take_over(work: Work, batch: Batch) -> Operation[Arrived]:
    """Store the records of a batch, unless it was taken over before."""
    yield from lock(work, "move", ["in"])
    if not (yield from change(TAKE_OVER, rows.id_to_store(batch.id))):
        return Arrived()
    [(lowest,)] = yield from fetch(LOWEST)
    places = range((lowest or 0) - 1, (lowest or 0) - 1 - len(batch.tasks), -1)
    return (yield from _put(work, batch, places))


def put_back(work: Work, batch: Batch) -> Operation[Arrived]:
    """Store the records of a batch again that was taken out here. Its tasks come behind all others."""
    return (yield from _put(work, batch, None))


def _put(work: Work, batch: Batch, places: Sequence[int] | None) -> Operation[Arrived]:
    """Store the records of a batch, its tasks at these places, or behind all others. Whoever calls has the lock."""
    if batch.paused != NOTHING_PAUSED:
        yield from pausing.pause(work, batch.paused)
    yield from _put_schedules(batch.schedules)
    if batch.starts:
        yield from change(limiting.INSERT_STARTS, as_json(map(_from_start, batch.starts)))
    yield from tallying.put(batch.tallies)
    if batch.chunks:
        yield from _put_chunks(batch.chunks)
    arrived = Arrived()
    if batch.tasks:
        arrived = yield from _put_tasks(work, batch.tasks, places)
    ended = {one.task.id: one.task for one in arrived.stored if one.task.state.finished}
    if ended:
        yield from follow(work, ended)
    work.queued = True
    return arrived


def _put_schedules(moved: Sequence[StoredSchedule]) -> Operation[None]:
    if not moved:
        return
    found = yield from fetch(scheduling.LOCK_SCHEDULES, sorted(one.name for one in moved))
    known = {one.name: one for one in map(scheduling.to_schedule, found)}
    after = [schedule.moved(known.get(one.name), one) for one in moved]
    yield from change(PUT_SCHEDULES, as_json(map(_from_schedule, after)))


def _from_schedule(one: StoredSchedule) -> dict[str, Any]:
    return {
        "name": one.name,
        "expression": one.expression,
        "after": rows.from_instant(one.after),
        "last_fire": rows.instant_or_none(one.last_fire),
        "paused": one.paused,
    }


def _from_start(one: limits.Start) -> dict[str, Any]:
    name, limit_key = one.group
    at, until = rows.from_instant(one.at), rows.from_instant(one.until)
    return {"name": name, "limit_key": limit_key, "at": at, "until": until}


def _put_chunks(chunks: Sequence[MovedChunk]) -> Operation[None]:
    owners = {chunk.file: (chunk.task, chunk.until) for chunk in chunks}
    stored = as_json(
        {"id": rows.id_to_store(file), "task": rows.id_to_store(task), "until": rows.instant_or_none(until)}
        for file, (task, until) in owners.items()
    )
    yield from change(PUT_FILES, stored)
    yield from change(files.INSERT_CHUNKS, *files.places(chunks), [chunk.content for chunk in chunks])


def _put_tasks(work: Work, tasks: Sequence[MovedTask], places: Sequence[int] | None) -> Operation[Arrived]:
    """Store tasks, which come newest first, with their failures, and the aliases of all that were moved.

    Raises Conflict if another transaction has stored one of them, or one with its key.
    """
    arrived = moving.arrive(tasks, (yield from _loaded(tasks)), work.now)
    if arrived.stored:
        stored = [*map(_from_moved, arrived.stored)]
        if (yield from _insert(stored, places)) < len(stored):
            raise Conflict
    failures = [
        _storable(rows.from_failure(one.task.id, failure)) for one in arrived.stored for failure in one.task.failures
    ]
    if failures:
        yield from change(changing.INSERT_FAILURES, as_json(failures))
    yield from changing.add_logs(logs for one in arrived.stored for logs in _logs(one.task))
    aliases = [{"id": rows.id_to_store(alias), "task": one.task.id} for one in tasks for alias in one.aliases]
    if aliases:
        yield from change(INSERT_ALIASES, as_json(aliases))
    return arrived


def _insert(tasks: Sequence[Row], places: Sequence[int] | None) -> Operation[int]:
    if places is None:
        return (yield from change(INSERT_LAST, as_json(reversed(tasks))))
    placed = ({**task, "seq": place} for task, place in zip(tasks, places, strict=False))
    return (yield from change(INSERT_MOVED, as_json(placed)))


def _loaded(tasks: Sequence[MovedTask]) -> Operation[Loaded]:
    """Lock and return the stored tasks that have the id or a key of one of these, or come before one of them."""
    ids = known_ids(moving.needed_ids(tasks))
    aliases: dict[str, str] = dict((yield from fetch(ALIASES, ids)))
    standing = {id: aliases.get(id, id) for id in ids}
    keys = [*dict.fromkeys(key for one in tasks for key in storing.keys_of(one.task))]
    found = yield from fetch(
        LOAD[False], [*standing.values()], _texts(keys, KeyKind.UNIQUE), _texts(keys, KeyKind.IDEMPOTENCY)
    )
    by_own_id = {task.id: task for task in map(parsing.to_task, found)}
    by_key = {
        key: task
        for task in by_own_id.values()
        for key in storing.keys_of(task)
        if not (key.kind is KeyKind.UNIQUE and task.state.finished)
    }
    by_id = {id: by_own_id[task] for id, task in standing.items() if task in by_own_id}
    return Loaded(by_id=by_id, by_key=by_key)


def _texts(keys: Iterable[Key], kind: KeyKind) -> list[str]:
    return [key.text for key in keys if key.kind is kind]


def _from_moved(one: MovedTask) -> Row:
    """Return a moved task as a row for JSON, without its place."""
    task = one.task
    return _storable(
        rows.from_new(task)
        | rows.changed(task, 0)
        | {
            "since": rows.instant_or_none(one.since),
            "plain": task.plain,
            "limit_key": task.limit_key,
            "rerun_after_crash": task.rerun_after_crash,
            "failures_left_out": task.failures_left_out,
        }
    )


def _logs(task: Task) -> Iterable[tuple[Lease, list[LogLine]]]:
    """Return the lines of each attempt that logged any."""
    by_attempt: dict[Lease, list[LogLine]] = {}
    for line in task.logs:
        by_attempt.setdefault(Lease(task.id, line.attempt), []).append(line)
    return by_attempt.items()


def _storable(row: Row) -> Row:
    """Return a row without NUL characters, which other engines store in texts and PostgreSQL does not."""
    return {
        name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
        for name, value in row.items()
    }
