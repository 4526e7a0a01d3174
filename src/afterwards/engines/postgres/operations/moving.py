"""Hand records over to another engine, and take them over.

Both take a lock, so that of several movers one after the other has its turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from afterwards.core import limits, moving, schedule, storing
from afterwards.core.claim import NOTHING_PAUSED, Paused
from afterwards.core.moving import CHUNKS_AT_ONCE, MOST_BYTES, Arrived, Batch, MovedChunk, MovedTask
from afterwards.core.schedule import StoredSchedule
from afterwards.core.storing import Key, KeyKind, Loaded
from afterwards.core.task import Lease, LogLine, State, Task
from afterwards.engines.postgres import parsing, rows
from afterwards.engines.postgres.operations import changing, files, limiting, pausing, pruning, reading, scheduling
from afterwards.engines.postgres.operations.storing import ALIASES, INSERT_ALIASES, LOAD, lock
from afterwards.engines.postgres.operations.successors import follow
from afterwards.engines.postgres.rows import COLUMNS, SEQ, TYPES, Row, as_json, known_ids, recordset
from afterwards.engines.postgres.work import Conflict, Operation, Work, change, fetch

READ_AT_ONCE = 50
"""Tasks that one statement reads. Each may be large, and a batch ends when it is large enough."""

LAST = 2**63 - 1
"""Not below the ``seq`` of any task."""

OUTGOING = "SELECT content FROM afterwards_outgoing"

INSERT_OUTGOING = "INSERT INTO afterwards_outgoing (batch, content) VALUES (%s::uuid, %s)"

DELETE_OUTGOING = "DELETE FROM afterwards_outgoing WHERE batch = %s::uuid"

TAKE_OVER = "INSERT INTO afterwards_taken_over (batch) VALUES (%s::uuid) ON CONFLICT DO NOTHING"

TAKE_SCHEDULES = "DELETE FROM afterwards_schedules RETURNING name, expression, after, last_fire, paused"

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

TAKE_STARTS = """
    DELETE FROM afterwards_starts WHERE ctid IN (
        SELECT ctid FROM afterwards_starts WHERE until > %s AND until <= %s AND at <= %s LIMIT %s FOR UPDATE
    )
    RETURNING name, limit_key, at, until
"""

CHUNKS = """
    SELECT c.file::text, f.task::text, c.number, c.content, f.until,
        EXISTS (SELECT 1 FROM afterwards_tasks t WHERE t.id = f.task)
    FROM afterwards_chunks c JOIN afterwards_files f ON f.id = c.file ORDER BY c.file, c.number LIMIT %s
"""

CONTENTS = """
    SELECT c.file::text, c.number, c.content FROM unnest(%s::uuid[], %s::integer[]) AS wanted (file, number)
    JOIN afterwards_chunks c ON c.file = wanted.file AND c.number = wanted.number
"""

DELETE_CHUNKS = """
    DELETE FROM afterwards_chunks c USING unnest(%s::uuid[], %s::integer[]) AS old (file, number)
    WHERE c.file = old.file AND c.number = old.number
"""

PUT_FILES = f"""
    INSERT INTO afterwards_files (id, task, until)
    SELECT id, task, until FROM {recordset("new", ["id"], task="uuid", until="bigint")} ORDER BY id
    ON CONFLICT DO NOTHING
"""

# Tasks behind which some are not decided on yet wait for that.
NEWEST = f"""
    SELECT {COLUMNS}, t.since FROM afterwards_tasks t
    WHERE t.seq < %s AND NOT EXISTS (SELECT 1 FROM afterwards_behind b WHERE b.task = t.id)
    ORDER BY t.seq DESC LIMIT %s FOR UPDATE OF t
"""

DELETE_TASKS = "DELETE FROM afterwards_tasks WHERE id = ANY (%s::uuid[])"

ALIASES_OF = "SELECT task::text, id::text FROM afterwards_aliases WHERE task = ANY (%s::uuid[])"

# Never above zero: there, others may store tasks that this transaction does not see yet.
LOWEST = "SELECT least(min(seq), 0) FROM afterwards_tasks"

INSERT_MOVED = f"""
    INSERT INTO afterwards_tasks ({", ".join(TYPES)}) OVERRIDING SYSTEM VALUE
    SELECT {", ".join(TYPES)} FROM {recordset("new", TYPES)} ON CONFLICT DO NOTHING
"""


def hand_over(work: Work, to: str, limit: int, done: Batch | None) -> Operation[Batch | None]:
    """Return the unfinished batch, else take the next records out and keep them as one."""
    yield from lock(work, "move", ["out"])
    for [content] in (yield from fetch(OUTGOING)):
        batch = moving.of_text(content)
        if done is None or done.id != batch.id:
            return (yield from _with_contents(batch))
        yield from _delete_chunks(batch)
        yield from change(DELETE_OUTGOING, batch.id)
    beyond = int(done.beyond) if done and done.beyond else LAST
    found = (yield from _settings(work, limit)) or (yield from _chunks()) or (yield from _newest(limit, beyond))
    if found is None:
        return None
    batch = replace(found, id=str(uuid4()), to=to)
    yield from change(INSERT_OUTGOING, batch.id, moving.to_text(batch))
    return batch


def take_over(work: Work, batch: Batch) -> Operation[Arrived]:
    """Store the records of a batch, unless it was taken over before."""
    yield from lock(work, "move", ["in"])
    if not (yield from change(TAKE_OVER, rows.id_to_store(batch.id))):
        return Arrived()
    if batch.paused != NOTHING_PAUSED:
        yield from pausing.pause(work, batch.paused)
    yield from _put_schedules(batch.schedules)
    if batch.starts:
        yield from change(limiting.INSERT_STARTS, as_json(map(_from_start, batch.starts)))
    if batch.chunks:
        yield from _put_chunks(batch.chunks)
    arrived = Arrived()
    if batch.tasks:
        arrived = yield from _put_tasks(work, batch.tasks)
    ended = {one.task.id: one.task for one in arrived.stored if one.task.state.finished}
    if ended:
        yield from follow(work, ended)
    work.queued = True
    return arrived


def _settings(work: Work, limit: int) -> Operation[Batch | None]:
    """Take out the pauses, the schedules, and starts that still count for rates."""
    paused = replace((yield from pausing.paused(work)), schedules=frozenset())
    if paused != NOTHING_PAUSED:
        yield from pausing.resume(work, paused)
    schedules = [scheduling.to_schedule(row) for row in (yield from fetch(TAKE_SCHEDULES))]
    began = yield from fetch(TAKE_STARTS, work.instant, rows.LATEST, rows.LATEST, limit)
    if paused == Paused() and not schedules and not began:
        return None
    starts = [
        limits.Start((name, limit_key), rows.to_instant(at), rows.to_instant(until))
        for name, limit_key, at, until in began
    ]
    return Batch(id="", to="", paused=paused, schedules=tuple(schedules), starts=tuple(starts))


def _chunks() -> Operation[Batch | None]:
    """Return the next chunks of files. They are not deleted before their batch is done."""
    chunks = tuple(
        MovedChunk(
            file=file,
            task=task,
            number=number,
            content=bytes(content),
            until=None if is_stored or until is None else rows.to_instant(min(until, rows.LATEST)),
        )
        for file, task, number, content, until, is_stored in (yield from fetch(CHUNKS, CHUNKS_AT_ONCE))
    )
    return Batch(id="", to="", chunks=chunks) if chunks else None


def _with_contents(batch: Batch) -> Operation[Batch]:
    """Return the batch with the contents of its chunks. Chunks that were deleted meanwhile are left out."""
    if not batch.chunks:
        return batch
    found = {
        (file, number): bytes(content) for file, number, content in (yield from fetch(CONTENTS, *_places(batch.chunks)))
    }
    chunks = tuple(
        replace(chunk, content=found[chunk.file, chunk.number])
        for chunk in batch.chunks
        if (chunk.file, chunk.number) in found
    )
    return replace(batch, chunks=chunks)


def _delete_chunks(batch: Batch) -> Operation[None]:
    if batch.chunks:
        yield from change(DELETE_CHUNKS, *_places(batch.chunks))
        yield from change(files.DELETE_EMPTY, sorted({chunk.file for chunk in batch.chunks}))


def _places(chunks: Sequence[MovedChunk]) -> tuple[list[str], list[int]]:
    return [chunk.file for chunk in chunks], [chunk.number for chunk in chunks]


def _newest(limit: int, beyond: int) -> Operation[Batch | None]:
    """Take out the newest tasks below a place. Those that cannot be read stay."""
    taken: list[MovedTask] = []
    looked_at = size = 0
    while looked_at < limit and size < MOST_BYTES:
        found = yield from fetch(NEWEST, beyond, min(limit - looked_at, READ_AT_ONCE))
        if not found:
            break
        for row, one in zip(found, (yield from _moved(found)), strict=True):
            looked_at, beyond = looked_at + 1, row[SEQ]
            if not one.task.unreadable:
                taken.append(one)
                size += one.size
            if size >= MOST_BYTES:
                break
    ids = [one.task.id for one in taken]
    if ids:
        yield from change(DELETE_TASKS, ids)
        yield from pruning.forget_details(ids)
    return Batch(id="", to="", tasks=tuple(taken), beyond=str(beyond)) if taken or looked_at == limit else None


def _moved(found: Sequence[Row]) -> Operation[list[MovedTask]]:
    tasks = yield from reading.to_whole_tasks([row[:-1] for row in found])
    aliases: dict[str, list[str]] = {}
    for id, alias in (yield from fetch(ALIASES_OF, [task.id for task in tasks])):
        aliases.setdefault(id, []).append(alias)
    moved = []
    for row, task in zip(found, tasks, strict=True):
        since = rows.to_instant_or_none(row[-1] if row[-1] is None else min(row[-1], rows.LATEST))
        if since is None and task.state is State.QUEUED:
            since = task.created_at
        moved.append(MovedTask(task=task, since=since, aliases=tuple(aliases.get(task.id, ()))))
    return moved


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
    yield from change(files.INSERT_CHUNKS, *_places(chunks), [chunk.content for chunk in chunks])


def _put_tasks(work: Work, tasks: Sequence[MovedTask]) -> Operation[Arrived]:
    """Store tasks before all others, newest first, with their failures, and the aliases of all that were moved.

    Raises Conflict if another transaction has stored one of them, or one with its key.
    """
    arrived = moving.arrive(tasks, (yield from _loaded(tasks)), work.now)
    [(lowest,)] = yield from fetch(LOWEST)
    if arrived.stored:
        stored = [_from_moved(one, (lowest or 0) - number) for number, one in enumerate(arrived.stored, 1)]
        if (yield from change(INSERT_MOVED, as_json(stored))) < len(stored):
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


def _from_moved(one: MovedTask, seq: int) -> Mapping[str, Any]:
    """Return a moved task as a row for JSON."""
    task = one.task
    return _storable(
        rows.from_new(task)
        | rows.changed(task, 0)
        | {
            "seq": seq,
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


def _storable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row without NUL characters, which other engines store in texts and PostgreSQL does not."""
    return {
        name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
        for name, value in row.items()
    }
