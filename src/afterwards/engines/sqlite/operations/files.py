"""Uploaded files, in chunks. Every function runs in a transaction that others share."""

from collections.abc import Iterable, Sequence

from afterwards.core.serialization.files import UNCLAIMED
from afterwards.engine import Chunk
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.io.connection import Connection

INSERT_FILE = "INSERT OR IGNORE INTO afterwards_files (id, task, until) VALUES (?, ?, ?)"

INSERT_CHUNK = "INSERT OR REPLACE INTO afterwards_chunks (file, number, content) VALUES (?, ?, ?)"

CHUNKS = "SELECT content FROM afterwards_chunks WHERE file = ? AND number >= ? AND number < ? ORDER BY number"

ANY_FILE = "SELECT 1 FROM afterwards_files LIMIT 1"

RELEASE_FILES = "UPDATE afterwards_files SET until = ? WHERE task = ?"

ANY_FILE_OVER = "SELECT 1 FROM afterwards_files WHERE until <= ? LIMIT 1"

FILES_OVER = """
    SELECT id, EXISTS (SELECT 1 FROM afterwards_tasks WHERE afterwards_tasks.id = afterwards_files.task)
    FROM afterwards_files WHERE until <= ? ORDER BY until LIMIT ?
"""

KEEP_FILE = "UPDATE afterwards_files SET until = NULL WHERE id = ?"

DELETE_CHUNKS = """
    DELETE FROM afterwards_chunks
    WHERE rowid IN (SELECT rowid FROM afterwards_chunks WHERE file = ? ORDER BY number LIMIT ?)
"""

DELETE_FILE = "DELETE FROM afterwards_files WHERE id = ?"

FILES_AT_ONCE, CHUNKS_AT_ONCE = 100, 64
"""What one transaction looks at and deletes, so that none takes long."""


def write(connection: Connection, chunks: Sequence[Chunk]) -> None:
    until = connection.after(UNCLAIMED)
    owners = {chunk.file: chunk.task for chunk in chunks}
    files = [(rows.key_to_store(file), rows.key_to_store(task), until) for file, task in owners.items()]
    connection.executemany(INSERT_FILE, files)
    contents = ((rows.key(chunk.file), chunk.number, chunk.content) for chunk in chunks)
    connection.executemany(INSERT_CHUNK, contents)


def read(connection: Connection, file: str, start: int, limit: int) -> list[bytes]:
    found = connection.execute(CHUNKS, (rows.key(file), start, start + limit)).fetchall()
    return [content for [content] in found if isinstance(content, bytes)]


def release(connection: Connection, tasks: Iterable[tuple[bytearray]]) -> None:
    """Have the files of tasks deleted that were deleted themselves."""
    if connection.execute(ANY_FILE).fetchone():
        connection.executemany(RELEASE_FILES, [(connection.instant, task) for [task] in tasks])


def is_any_over(connection: Connection) -> bool:
    return connection.execute(ANY_FILE_OVER, (connection.instant,)).fetchone() is not None


def delete_some(connection: Connection) -> bool:
    """Delete files whose time is over and whose task is not there. Returns whether there may be more of them."""
    over = connection.execute(FILES_OVER, (connection.instant, FILES_AT_ONCE)).fetchall()
    left = CHUNKS_AT_ONCE
    for id, is_needed in over:
        if is_needed:
            connection.execute(KEEP_FILE, (rows.raw(id),))
            continue
        left -= connection.execute(DELETE_CHUNKS, (rows.raw(id), left)).rowcount
        if left < 1:  # perhaps there are more in this file
            return True
        connection.execute(DELETE_FILE, (rows.raw(id),))
    return len(over) == FILES_AT_ONCE
