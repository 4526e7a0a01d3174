"""Hand records over to another engine. One caller after the other has its turn."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from afterwards.core import limits, moving
from afterwards.core.claim import NOTHING_PAUSED
from afterwards.core.moving import CHUNKS_AT_ONCE, MOST_BYTES, Batch, MovedChunk, MovedTask, PutBack
from afterwards.core.task import State
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import files, pausing, pruning, reading, scheduling, taking_over, tallying
from afterwards.engines.postgres.operations.storing import lock
from afterwards.engines.postgres.rows import COLUMNS, SEQ, Row
from afterwards.engines.postgres.work import Operation, Work, change, fetch

READ_AT_ONCE = 50
"""Tasks that one statement reads. Each may be large, and a batch ends when it is large enough."""

LAST = 2**63 - 1
"""Not below the ``seq`` of any task."""

OUTGOING = "SELECT content FROM afterwards_outgoing"

INSERT_OUTGOING = "INSERT INTO afterwards_outgoing (batch, content) VALUES (%s::uuid, %s)"

DELETE_OUTGOING = "DELETE FROM afterwards_outgoing WHERE batch = %s::uuid"

TAKE_SCHEDULES = "DELETE FROM afterwards_schedules RETURNING name, expression, after, last_fire, paused"

TAKE_STARTS = """
    DELETE FROM afterwards_starts WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM afterwards_starts WHERE until > %s AND until <= %s AND at <= %s LIMIT %s FOR UPDATE
    ))
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

# Tasks behind which some are not decided on yet wait for that.
NEWEST = f"""
    SELECT {COLUMNS}, t.since FROM afterwards_tasks t
    WHERE t.seq < %s AND NOT EXISTS (SELECT 1 FROM afterwards_behind b WHERE b.task = t.id)
    ORDER BY t.seq DESC LIMIT %s FOR UPDATE OF t
"""

DELETE_TASKS = "DELETE FROM afterwards_tasks WHERE id = ANY (%s::uuid[])"

ALIASES_OF = "SELECT task::text, id::text FROM afterwards_aliases WHERE task = ANY (%s::uuid[])"


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


def put_back(work: Work) -> Operation[PutBack | None]:
    """Store the unfinished batch here again. Its chunks are here still."""
    yield from lock(work, "move", ["in", "out"])
    for [content] in (yield from fetch(OUTGOING)):
        batch = moving.of_text(content)
        yield from change(DELETE_OUTGOING, batch.id)
        arrived = yield from taking_over.put_back(work, replace(batch, chunks=()))
        return PutBack(batch=batch, arrived=arrived)
    return None


def _settings(work: Work, limit: int) -> Operation[Batch | None]:
    """Take out the pauses, the schedules, starts that still count for rates, and counts of ended attempts."""
    paused = replace((yield from pausing.paused(work)), schedules=frozenset())
    if paused != NOTHING_PAUSED:
        yield from pausing.resume(work, paused)
    schedules = [scheduling.to_schedule(row) for row in (yield from fetch(TAKE_SCHEDULES))]
    began = yield from fetch(TAKE_STARTS, work.instant, rows.LATEST, rows.LATEST, limit)
    starts = [
        limits.Start((name, limit_key), rows.to_instant(at), rows.to_instant(until))
        for name, limit_key, at, until in began
    ]
    tallies = tuple((yield from tallying.take(limit)))
    batch = Batch(id="", to="", paused=paused, schedules=tuple(schedules), starts=tuple(starts), tallies=tallies)
    return None if batch.is_empty else batch


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
        (file, number): bytes(content)
        for file, number, content in (yield from fetch(CONTENTS, *files.places(batch.chunks)))
    }
    chunks = tuple(
        replace(chunk, content=found[chunk.file, chunk.number])
        for chunk in batch.chunks
        if (chunk.file, chunk.number) in found
    )
    return replace(batch, chunks=chunks)


def _delete_chunks(batch: Batch) -> Operation[None]:
    if batch.chunks:
        yield from change(DELETE_CHUNKS, *files.places(batch.chunks))
        yield from change(files.DELETE_EMPTY, sorted({chunk.file for chunk in batch.chunks}))


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
