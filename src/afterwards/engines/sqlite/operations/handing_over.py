"""Hand records over to another engine, in a transaction that others share."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

from afterwards.core import limits, moving
from afterwards.core.claim import NOTHING_PAUSED
from afterwards.core.moving import CHUNKS_AT_ONCE, MOST_BYTES, Batch, MovedChunk, MovedTask, PutBack
from afterwards.core.tallies import Ends, Tally
from afterwards.core.task import Failure, FailureKind, State
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import files, pausing, pruning, reading, taking_over
from afterwards.engines.sqlite.operations.scheduling import schedules
from afterwards.engines.sqlite.shapes import LATEST, is_text

READ_AT_ONCE = 50
"""Tasks that one statement reads. Each may be large, and a batch ends when it is large enough."""

LAST = 2**63 - 1
"""Above the ``seq`` of every task."""

OUTGOING = "SELECT content FROM afterwards_outgoing"

INSERT_OUTGOING = "INSERT INTO afterwards_outgoing (batch, content) VALUES (?, ?)"

DELETE_OUTGOING = "DELETE FROM afterwards_outgoing WHERE batch = ?"

DELETE_SCHEDULES = "DELETE FROM afterwards_schedules WHERE name IN ({places})"

COUNTING_STARTS = """
    SELECT rowid, name, limit_key, at, until FROM afterwards_starts
    WHERE until > ? AND until <= ? AND typeof(at) = 'integer' AND at <= ? LIMIT ?
"""

DELETE_STARTS = "DELETE FROM afterwards_starts WHERE rowid IN ({places})"

TALLIES = "SELECT at, succeeded, failed, retried FROM afterwards_tallies WHERE at <= ? ORDER BY at LIMIT ?"

DELETE_TALLIES = "DELETE FROM afterwards_tallies WHERE at IN ({places})"

CHUNKS = """
    SELECT file, task, number, content, until,
        EXISTS (SELECT 1 FROM afterwards_tasks WHERE afterwards_tasks.id = afterwards_files.task)
    FROM afterwards_chunks CROSS JOIN afterwards_files ON afterwards_files.id = file
    WHERE typeof(content) = 'blob' AND typeof(number) = 'integer'
        AND typeof(file) = 'blob' AND length(file) = 16 AND typeof(task) = 'blob' AND length(task) = 16
    ORDER BY afterwards_chunks.rowid LIMIT ?
"""

CONTENTS = """
    WITH wanted (file, number) AS (VALUES {rows})
    SELECT wanted.file, wanted.number, content FROM wanted JOIN afterwards_chunks USING (file, number)
"""

DELETE_CHUNKS = """
    WITH old (file, number) AS (VALUES {rows})
    DELETE FROM afterwards_chunks WHERE rowid IN (
        SELECT afterwards_chunks.rowid FROM old JOIN afterwards_chunks USING (file, number)
    )
"""

# Tasks behind which some are not decided on yet wait for that.
NEWEST = f"""
    SELECT {COLUMNS}, queued_at FROM afterwards_tasks
    WHERE seq < ? AND id NOT IN (SELECT task FROM afterwards_behind) ORDER BY seq DESC LIMIT ?
"""

ALIASES_OF = """
    SELECT task, id FROM afterwards_aliases WHERE task IN ({places}) AND typeof(id) = 'blob' AND length(id) = 16
"""


def hand_over(connection: Connection, to: str, limit: int, done: Batch | None) -> Batch | None:
    """Return the unfinished batch, else take the next records out and keep them as one."""
    for [content] in connection.execute(OUTGOING).fetchall():
        batch = moving.of_text(content)
        if done is None or done.id != batch.id:
            return _with_contents(connection, batch)
        _delete_chunks(connection, batch)
        connection.execute(DELETE_OUTGOING, (rows.key(batch.id),))
    found = (
        _settings(connection, limit)
        or _chunks(connection)
        or _newest(connection, limit, int(done.beyond) if done and done.beyond else LAST)
    )
    if found is None:
        return None
    batch = replace(found, id=str(uuid4()), to=to)
    connection.execute(INSERT_OUTGOING, (rows.key(batch.id), moving.to_text(batch)))
    return batch


def put_back(connection: Connection) -> PutBack | None:
    """Store the unfinished batch here again. Its chunks are here still."""
    for [content] in connection.execute(OUTGOING).fetchall():
        batch = moving.of_text(content)
        connection.execute(DELETE_OUTGOING, (rows.key(batch.id),))
        return PutBack(batch=batch, arrived=taking_over.put_back(connection, replace(batch, chunks=())))
    return None


def _settings(connection: Connection, limit: int) -> Batch | None:
    """Take out the pauses, the schedules, starts that still count for rates, and counts of ended attempts."""
    paused = connection.paused
    found = [one for one in schedules(connection) if is_text(one.name) and is_text(one.expression)]
    if paused != NOTHING_PAUSED:
        pausing.resume(connection, paused)
    many.change(connection, DELETE_SCHEDULES, [one.name for one in found])
    values = (connection.instant, LATEST, LATEST, limit)
    began = [row for row in connection.execute(COUNTING_STARTS, values).fetchall() if all(map(is_text, row[1:3]))]
    many.change(connection, DELETE_STARTS, [rowid for rowid, *_ in began])
    starts = tuple(
        limits.Start((name, limit_key), rows.to_instant(at), rows.to_instant(until))
        for _, name, limit_key, at, until in began
    )
    batch = Batch(
        id="", to="", paused=paused, schedules=tuple(found), starts=starts, tallies=_tallies(connection, limit)
    )
    return None if batch.is_empty else batch


def _tallies(connection: Connection, limit: int) -> tuple[Tally, ...]:
    found = connection.execute(TALLIES, (LATEST, limit)).fetchall()
    many.change(connection, DELETE_TALLIES, [at for at, *_ in found])
    return tuple(Tally(rows.to_instant(at), Ends(*map(int, numbers))) for at, *numbers in found)


def _chunks(connection: Connection) -> Batch | None:
    """Return the next chunks of files. They are not deleted before their batch is done."""
    chunks = tuple(
        MovedChunk(
            file=rows.to_id(file),
            task=rows.to_id(task),
            number=number,
            content=content,
            until=None if is_stored or until is None else rows.instant_or(until, connection.now),
        )
        for file, task, number, content, until, is_stored in connection.execute(CHUNKS, (CHUNKS_AT_ONCE,)).fetchall()
    )
    return Batch(id="", to="", chunks=chunks) if chunks else None


def _with_contents(connection: Connection, batch: Batch) -> Batch:
    """Return the batch with the contents of its chunks. Chunks that were deleted meanwhile are left out."""
    if not batch.chunks:
        return batch
    wanted = [(rows.key(chunk.file), chunk.number) for chunk in batch.chunks]
    found = {
        (rows.to_id(file), number): content
        for file, number, content in many.select_by_rows(connection, CONTENTS, wanted)
    }
    chunks = tuple(
        replace(chunk, content=found[chunk.file, chunk.number])
        for chunk in batch.chunks
        if (chunk.file, chunk.number) in found
    )
    return replace(batch, chunks=chunks)


def _delete_chunks(connection: Connection, batch: Batch) -> None:
    done = [(rows.key(chunk.file), chunk.number) for chunk in batch.chunks]
    many.update(connection, DELETE_CHUNKS, done)
    many.change(
        connection, files.DELETE_EMPTY_FILES, [rows.key(file) for file in {chunk.file for chunk in batch.chunks}]
    )


def _newest(connection: Connection, limit: int, beyond: int) -> Batch | None:
    """Take out the newest tasks below a place. Those that cannot be read stay."""
    taken: list[MovedTask] = []
    looked_at = size = 0
    for seq, one in _below(connection, beyond, limit):
        looked_at, beyond = looked_at + 1, seq
        if not one.task.unreadable:
            taken.append(one)
            size += one.size
        if size >= MOST_BYTES:
            break
    pruning.forget(connection, [rows.key(one.task.id) for one in taken])
    return Batch(id="", to="", tasks=tuple(taken), beyond=str(beyond)) if taken or looked_at == limit else None


def _below(connection: Connection, beyond: int, limit: int) -> Iterator[tuple[int, MovedTask]]:
    """Yield tasks by descending ``seq``, at most ``limit``, with everything that is stored of them."""
    while limit > 0 and (found := connection.execute(NEWEST, (beyond, min(limit, READ_AT_ONCE))).fetchall()):
        yield from _moved(connection, found)
        limit -= len(found)
        beyond = found[-1][-2]


def _moved(connection: Connection, found: Sequence[rows.Row]) -> Iterator[tuple[int, MovedTask]]:
    tasks = reading.with_logs(connection, reading.to_tasks(connection, [row[:-1] for row in found]))
    aliases: dict[bytes, list[str]] = {}
    for key, alias in many.select(connection, ALIASES_OF, [rows.raw(row[0]) for row in found]):
        aliases.setdefault(key, []).append(rows.to_id(alias))
    for row, task in zip(found, tasks, strict=True):
        *_, seq, queued_at = row
        since = None if queued_at is None else rows.instant_or(queued_at, task.created_at)
        if since is None and task.state is State.QUEUED:
            since = task.created_at
        failures = tuple(map(_as_text, task.failures))
        yield seq, MovedTask(task=replace(task, failures=failures), since=since, aliases=tuple(aliases.get(row[0], ())))


def _as_text(failure: Failure) -> Failure:
    """Return a failure whose texts are Unicode, whatever the file holds."""
    if failure.kind is not FailureKind.UNKNOWN:
        return failure
    texts = {name: getattr(failure, name) for name in ("worker", "type", "message", "traceback")}
    return replace(failure, **{name: text.encode(errors="replace").decode() for name, text in texts.items()})
