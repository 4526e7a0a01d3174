"""Uploaded files, in chunks. Every function runs in a transaction that others share."""

from collections.abc import Sequence

from afterwards.core.serialization.files import UNCLAIMED
from afterwards.engine import Chunk
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection

CHUNKS = "SELECT content FROM afterwards_chunks WHERE file = ? AND number >= ? AND number < ? ORDER BY number"

ANY_FILE = "SELECT 1 FROM afterwards_files LIMIT 1"

ANY_FILE_OVER = "SELECT 1 FROM afterwards_files WHERE until <= ? LIMIT 1"

FILES_OVER = """
    SELECT id, EXISTS (SELECT 1 FROM afterwards_tasks WHERE afterwards_tasks.id = afterwards_files.task)
    FROM afterwards_files WHERE until <= ? ORDER BY until LIMIT ?
"""

FILES_AT_ONCE, CHUNKS_AT_ONCE = 100, 64
"""Files and chunks that one transaction reads and deletes, so that none takes long."""


INSERT_FILES = "INSERT OR IGNORE INTO afterwards_files (id, task, until) VALUES {rows}"

INSERT_CHUNKS = "INSERT OR REPLACE INTO afterwards_chunks (file, number, content) VALUES {rows}"

RELEASE_FILES = "UPDATE afterwards_files SET until = ? WHERE task IN ({places})"


KEEP_FILES = "UPDATE afterwards_files SET until = NULL WHERE id IN ({places})"

DELETE_CHUNKS = """
    DELETE FROM afterwards_chunks
    WHERE rowid IN (SELECT rowid FROM afterwards_chunks WHERE file IN ({places}) LIMIT ?)
"""

DELETE_EMPTY_FILES = """
    DELETE FROM afterwards_files
    WHERE id IN ({places}) AND NOT EXISTS (SELECT 1 FROM afterwards_chunks WHERE file = afterwards_files.id)
"""


def write(connection: Connection, chunks: Sequence[Chunk]) -> None:
    until = connection.after(UNCLAIMED)
    owners = {chunk.file: chunk.task for chunk in chunks}
    files = [(rows.key_to_store(file), rows.key_to_store(task), until) for file, task in owners.items()]
    many.insert(connection, INSERT_FILES, files)
    contents = [(rows.key(chunk.file), chunk.number, chunk.content) for chunk in chunks]
    many.insert(connection, INSERT_CHUNKS, contents)


def read(connection: Connection, file: str, start: int, limit: int) -> list[bytes]:
    found = connection.execute(CHUNKS, (rows.key(file), start, start + limit)).fetchall()
    return [content for [content] in found if isinstance(content, bytes)]


def release(connection: Connection, tasks: Sequence[bytearray]) -> None:
    """Mark the files of deleted tasks for deletion."""
    if connection.execute(ANY_FILE).fetchone():
        many.change(connection, RELEASE_FILES, tasks, before=(connection.instant,))


def is_any_over(connection: Connection) -> bool:
    return connection.execute(ANY_FILE_OVER, (connection.instant,)).fetchone() is not None


def delete_some(connection: Connection) -> bool:
    """Delete files whose time is over and whose task does not exist. Returns whether there may be more of them."""
    over = connection.execute(FILES_OVER, (connection.instant, FILES_AT_ONCE)).fetchall()
    many.change(connection, KEEP_FILES, rows.all_raw(id for id, is_needed in over if is_needed))
    doomed = rows.all_raw(id for id, is_needed in over if not is_needed)
    deleted = many.change(connection, DELETE_CHUNKS, doomed, CHUNKS_AT_ONCE)
    many.change(connection, DELETE_EMPTY_FILES, doomed)
    return len(over) == FILES_AT_ONCE or deleted == CHUNKS_AT_ONCE
