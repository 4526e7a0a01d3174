"""Uploaded files, in chunks."""

from collections.abc import Sequence

from afterwards.core.moving import MovedChunk
from afterwards.core.serialization.files import UNCLAIMED
from afterwards.engine import Chunk
from afterwards.engines.postgres.rows import as_json, id_to_store, is_uuid, known_ids, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

CHUNKS = """
    SELECT content FROM afterwards_chunks WHERE file = %s::uuid AND number >= %s AND number < %s ORDER BY number
"""

INSERT_FILES = f"""
    INSERT INTO afterwards_files (id, task, until)
    SELECT id, task, %s::bigint FROM {recordset("new", ["id"], task="uuid")}
    ORDER BY id ON CONFLICT DO NOTHING
"""

INSERT_CHUNKS = """
    INSERT INTO afterwards_chunks (file, number, content)
    SELECT file, number, content FROM unnest(%s::uuid[], %s::integer[], %s::bytea[]) AS new (file, number, content)
    ORDER BY file, number
    ON CONFLICT (file, number) DO UPDATE SET content = excluded.content
"""

RELEASE = "UPDATE afterwards_files SET until = %s WHERE task = ANY (%s::uuid[])"

OVER = """
    SELECT f.id::text, EXISTS (SELECT 1 FROM afterwards_tasks t WHERE t.id = f.task)
    FROM afterwards_files f WHERE f.until <= %s ORDER BY f.until LIMIT %s FOR UPDATE OF f SKIP LOCKED
"""

KEEP = "UPDATE afterwards_files SET until = NULL WHERE id = ANY (%s::uuid[])"

DELETE_CHUNKS = """
    DELETE FROM afterwards_chunks WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM afterwards_chunks WHERE file = ANY (%s::uuid[]) LIMIT %s
    ))
"""

DELETE_EMPTY = """
    DELETE FROM afterwards_files f
    WHERE f.id = ANY (%s::uuid[]) AND NOT EXISTS (SELECT 1 FROM afterwards_chunks c WHERE c.file = f.id)
"""

FILES_AT_ONCE, CHUNKS_AT_ONCE = 100, 64
"""Files and chunks that one transaction reads and deletes, so that none takes long."""


def write(work: Work, chunks: Sequence[Chunk]) -> Operation[None]:
    owners = {id_to_store(chunk.file): id_to_store(chunk.task) for chunk in chunks}
    files = as_json({"id": file, "task": task} for file, task in owners.items())
    yield from change(INSERT_FILES, work.after(UNCLAIMED), files)
    last = {(chunk.file, chunk.number): chunk.content for chunk in chunks}
    ids, numbers = [file for file, _ in last], [number for _, number in last]
    yield from change(INSERT_CHUNKS, ids, numbers, [*last.values()])


def read(file: str, start: int, limit: int) -> Operation[list[bytes]]:
    if not is_uuid(file):
        return []
    return [bytes(content) for [content] in (yield from fetch(CHUNKS, file, start, start + limit))]


def release(work: Work, tasks: Sequence[str]) -> Operation[None]:
    """Mark the files of deleted tasks for deletion."""
    yield from change(RELEASE, work.instant, known_ids(tasks))


def delete_some(work: Work) -> Operation[bool]:
    """Delete files whose time is over and whose task does not exist. Returns whether there may be more of them."""
    over = yield from fetch(OVER, work.instant, FILES_AT_ONCE)
    if not over:
        return False
    yield from change(KEEP, [id for id, is_needed in over if is_needed])
    doomed = [id for id, is_needed in over if not is_needed]
    deleted = yield from change(DELETE_CHUNKS, doomed, CHUNKS_AT_ONCE)
    yield from change(DELETE_EMPTY, doomed)
    return len(over) == FILES_AT_ONCE or deleted == CHUNKS_AT_ONCE


def places(chunks: Sequence[Chunk | MovedChunk]) -> tuple[list[str], list[int]]:
    """Return the files and the numbers of chunks."""
    return [chunk.file for chunk in chunks], [chunk.number for chunk in chunks]
