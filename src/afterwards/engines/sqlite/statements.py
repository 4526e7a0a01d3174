"""The SQL of the engine. States are literals, for only then is a partial index certain to be used."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TypeVar

from afterwards.engines.sqlite.shapes import LATEST

T = TypeVar("T")

COLUMNS = """
    id, name, arguments, created_at, state, queue, priority, overrides, retention, origin, after, plain,
    attempt, failed, crashed, suspect, run_at, worker, lease_until, started_at, finished_at,
    cancel_requested, reason, cause, progress, result,
    expires_at, more, losses, aside_from, set_aside, failures_left_out, limit_key, seq
"""

# Transactions.

BEGIN_WRITING = "BEGIN IMMEDIATE"  # DEFERRED fails at once, without waiting, when it has read before it writes
BEGIN_READING = "BEGIN"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

DATA_VERSION = "PRAGMA data_version"

DATABASES = """
SELECT name, file, (SELECT synchronous FROM pragma_synchronous) FROM pragma_database_list
"""

# The schema. Its version has a table of its own, for the file may be an application's database.

HAS_VERSION = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'afterwards_schema')"

GET_VERSION = "SELECT version FROM afterwards_schema"

SET_VERSION = "INSERT OR REPLACE INTO afterwards_schema (one, version) VALUES (1, ?)"

IS_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)"

# What is set aside.
#
# Of its columns only those are written that say so, for the others may be what this version cannot read.

ASIDE = "aside_from IS NOT NULL"

SET_ASIDE = """
    UPDATE afterwards_tasks SET state = 'unreadable', aside_from = state, set_aside = ?
    WHERE seq = ? AND aside_from IS NULL
"""

CANCEL_UNREADABLE = """
    UPDATE afterwards_tasks SET
        state = 'cancelled', aside_from = NULL, set_aside = NULL, run_at = NULL, finished_at = ?, reason = ?
    WHERE seq = ? AND state NOT IN ('running', 'succeeded', 'failed', 'cancelled')
"""

ASK_UNREADABLE_TO_STOP = "UPDATE afterwards_tasks SET cancel_requested = ? WHERE seq = ? AND state = 'running'"

# Rows that no look at an index would ever come to. Each is found by one step in an index.
LOST_TO_INDEXES = (
    "SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at IS NULL",
    f"SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > {LATEST}",
    "SELECT seq FROM afterwards_tasks WHERE state = 'running' AND lease_until IS NULL",
    f"SELECT seq FROM afterwards_tasks WHERE state = 'running' AND lease_until > {LATEST}",
    "SELECT seq FROM afterwards_tasks WHERE state = 'queued' AND limit_key = '' AND suspect < 0",
    "SELECT seq FROM afterwards_tasks WHERE state = 'queued' AND limit_key = '' AND suspect > 1",
    "SELECT seq FROM afterwards_tasks WHERE state = 'queued' AND limit_key != '' AND suspect < 0",
    "SELECT seq FROM afterwards_tasks WHERE state = 'queued' AND limit_key != '' AND suspect > 1",
    "SELECT seq FROM afterwards_tasks WHERE state = 'waiting' AND after IS NULL",
)

STILL_LOST = f"SELECT {COLUMNS} FROM afterwards_tasks WHERE seq = ? AND state = 'running' AND lease_until <= ?"

ODD_LANES = "SELECT seq, queue, name, limit_key FROM afterwards_tasks WHERE state = 'queued'"

BY_SEQ = f"SELECT {COLUMNS} FROM afterwards_tasks WHERE seq = ?"

# Reading.


FIND = f"""
    SELECT {COLUMNS} FROM afterwards_tasks
    WHERE seq IN (SELECT seq FROM afterwards_tasks {{index}} WHERE {{conditions}} ORDER BY seq DESC LIMIT ?)
"""

BEFORE = "seq < (SELECT seq FROM afterwards_tasks WHERE id = ?)"

COUNTS = f"""
    SELECT queue, 'waiting', count(*) FROM afterwards_tasks WHERE state = 'waiting' GROUP BY queue
    UNION ALL
    SELECT queue, 'scheduled', count(*) FROM afterwards_tasks WHERE state = 'scheduled' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks INDEXED BY afterwards_queued
    WHERE state = 'queued' AND limit_key = '' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE state = 'queued' AND limit_key != '' GROUP BY queue
    UNION ALL
    SELECT queue, 'running', count(*) FROM afterwards_tasks WHERE state = 'running' GROUP BY queue
    UNION ALL
    SELECT queue, state, count(*) FROM afterwards_tasks INDEXED BY afterwards_ended
    WHERE finished_at IS NOT NULL GROUP BY state, queue
    UNION ALL
    SELECT queue, aside_from, count(*) FROM afterwards_tasks INDEXED BY afterwards_aside
    WHERE {ASIDE} GROUP BY 1, 2
"""

OLDEST = """
    SELECT created_at FROM afterwards_tasks
    WHERE seq = (
        SELECT min(seq) FROM (
            SELECT min(seq) AS seq FROM afterwards_tasks INDEXED BY afterwards_queued
            WHERE state = 'queued' AND limit_key = ''
            UNION ALL
            SELECT min(seq) FROM afterwards_tasks INDEXED BY afterwards_limited
            WHERE state = 'queued' AND limit_key != ''
        )
    )
"""

NEXT_DUE = f"SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= {LATEST}"

# Storing.

INSERT = "INSERT INTO afterwards_tasks ({columns}) VALUES {rows}"


@lru_cache
def insert(columns: tuple[str, ...], count: int) -> str:
    """The statement for so many tasks with these values: what is not named is NULL, and costs nothing to bind."""
    row = f"({', '.join('?' * len(columns))})"
    return INSERT.format(columns=", ".join(columns), rows=", ".join([row] * count))


SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""How many places or ids one statement names, so that few are ever prepared; old versions of SQLite allow 999."""


def pieces(named: Sequence[T], most: int = SIZES[-1]) -> Iterator[Sequence[T]]:
    """What is to be named, in pieces that one statement can name."""
    return (named[start : start + most] for start in range(0, len(named), most))


def padded(named: Sequence[T]) -> list[T]:
    """As many as one of the sizes: the last one is named again."""
    size = next(size for size in SIZES if size >= len(named))
    return [*named, *[named[-1]] * (size - len(named))]


@cache
def sized(statement: str, places: int, results: int = 1) -> str:
    """The statement that names so many places or ids: as many as ``padded`` gives, for each number is prepared."""
    result = "?" if results == 1 else f"CASE id{' WHEN ? THEN ?' * results} END"
    return statement.format(places=", ".join("?" * places), result=result)


# Claiming.
#
# What is queued lies in two indexes: what has a limit lies apart, so that the others need not be told apart.
QUEUED = "state = 'queued' AND limit_key = ''"
LIMITED = "state = 'queued' AND limit_key != ''"

# No row, as most often, when there is nothing: the driver takes a step for each, and one to learn that it was the last.
LOOK = f"""
    SELECT next_due, overdue, queued, limited, paused, waiting FROM (
        SELECT
            (SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= {LATEST}) AS next_due,
            EXISTS (
                SELECT 1 FROM afterwards_tasks
                WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at <= ?
                    AND state NOT IN ('running', 'unreadable')
            ) AS overdue,
            EXISTS (SELECT 1 FROM afterwards_tasks WHERE {QUEUED}) AS queued,
            EXISTS (SELECT 1 FROM afterwards_tasks WHERE {LIMITED}) AS limited,
            EXISTS (SELECT 1 FROM afterwards_paused) AS paused,
            EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting') AS waiting
    )
    WHERE next_due IS NOT NULL OR overdue OR queued OR limited OR paused OR waiting
"""

PROMOTE = """
    UPDATE afterwards_tasks SET state = 'queued', queued_at = run_at, run_at = NULL WHERE seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?
    )
"""

NEXT_QUEUE = f"SELECT queue FROM afterwards_tasks WHERE {QUEUED} AND suspect = ? AND queue >= ? ORDER BY queue LIMIT 1"

NEXT_NAME = f"""
    SELECT name FROM afterwards_tasks WHERE {QUEUED} AND suspect = ? AND queue = ? AND name >= ? ORDER BY name LIMIT 1
"""

LANE = f"""
    SELECT -priority, seq, suspect FROM afterwards_tasks WHERE {QUEUED} AND suspect = ? AND queue = ? AND name = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

NEXT_LIMITED_QUEUE = f"""
    SELECT queue FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE {LIMITED} AND suspect = ? AND queue >= ?
    ORDER BY queue LIMIT 1
"""

NEXT_LIMITED_NAME = f"""
    SELECT name FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name >= ?
    ORDER BY name LIMIT 1
"""

NEXT_LIMIT_KEY = f"""
    SELECT limit_key FROM afterwards_tasks
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name = ? AND limit_key >= ?
    ORDER BY limit_key LIMIT 1
"""

LIMITED_LANE = f"""
    SELECT -priority, seq, suspect FROM afterwards_tasks
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name = ? AND limit_key = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

BUNDLE = f"""
    SELECT -priority, seq, suspect, limit_key FROM afterwards_tasks INDEXED BY afterwards_limited_first
    WHERE {LIMITED} AND suspect = ? AND queue = ? AND name = ?
    ORDER BY priority DESC, seq LIMIT ?
"""


TO_TAKE = {
    "state": "'running'",
    "attempt": "CASE typeof(attempt) WHEN 'integer' THEN attempt + 1 ELSE attempt END",  # what is none is to be seen
    "run_at": "NULL",
    "worker": "?",
    "lease_until": "?",
    "started_at": "?",
    "progress": "NULL",
}
"""The changes of a row whose task a worker takes; ``lifecycle.claim`` says the same."""

TAKE = f"""
    UPDATE afterwards_tasks SET {", ".join(f"{column} = {value}" for column, value in TO_TAKE.items())}
    WHERE seq IN ({{places}})
"""

# The rows as they will be: what cannot be read of them is found before anything is changed.
TAKEN = f"""
    SELECT {", ".join(TO_TAKE.get(column, column) for column in COLUMNS.replace(",", " ").split())}
    FROM afterwards_tasks WHERE seq IN ({{places}})
"""

RUNNING = """
    SELECT name, limit_key, count(*) FROM afterwards_tasks INDEXED BY afterwards_running WHERE state = 'running'
    GROUP BY name, limit_key
"""

STARTS = "SELECT at FROM afterwards_starts WHERE name = ? AND limit_key = ? AND at > ? ORDER BY at"


DELETE_STARTS = "DELETE FROM afterwards_starts WHERE until <= ?"


PAUSED = "SELECT kind, name FROM afterwards_paused"


# Holding leases.


EXPIRED = f"""
    SELECT {COLUMNS} FROM afterwards_tasks WHERE state = 'running' AND lease_until <= ?
    ORDER BY lease_until, seq LIMIT ?
"""


# Changing.

STILL_HELD = """
    SELECT id, limit_key FROM afterwards_tasks INDEXED BY afterwards_id
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

SUCCEED = """
    UPDATE afterwards_tasks INDEXED BY afterwards_id SET
        state = 'succeeded', failed = ?, crashed = ?, suspect = 0, losses = 0, lease_until = NULL, finished_at = ?,
        cancel_requested = NULL, reason = NULL, result = {result}
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

# The same, unless one of them is not held, or has a limit that others may wait for: then none is changed.
SUCCEED_ALL = f"""
    {SUCCEED} AND limit_key = '' AND (
        SELECT count(*) FROM afterwards_tasks INDEXED BY afterwards_id
        WHERE id IN ({{places}}) AND attempt = ? AND state = 'running' AND limit_key = ''
    ) = ?
"""

UPDATE = """
    UPDATE afterwards_tasks SET
        state = ?, attempt = ?, failed = ?, crashed = ?, suspect = ?, losses = ?, run_at = ?, worker = ?,
        lease_until = ?, started_at = ?, finished_at = ?, cancel_requested = ?, reason = ?, cause = ?, progress = ?,
        result = ?, expires_at = ?, aside_from = ?, set_aside = ?, queued_at = ?
    WHERE id = ?
"""


BEHIND = "SELECT seq, task, revived, beyond FROM afterwards_behind ORDER BY seq LIMIT ?"

ANY_BEHIND = "SELECT 1 FROM afterwards_behind LIMIT 1"

# After a correction of the clock. NULL in queued_at: a scheduled task waits for an instant of the caller's own.

WRONG = """
    SELECT EXISTS (SELECT 1 FROM afterwards_schedules WHERE after > ?)
        OR EXISTS (SELECT 1 FROM afterwards_workers WHERE seen_at > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'running' AND lease_until > ?)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > ? AND queued_at > ?)
        OR EXISTS (
            SELECT 1 FROM afterwards_tasks INDEXED BY afterwards_expiring
            WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at > ? AND created_at > ?
                AND aside_from IS NULL
        )
"""

WRONG_TASKS = f"""
    SELECT {COLUMNS}, queued_at FROM afterwards_tasks
    WHERE seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at > ? AND queued_at > ?
        UNION
        SELECT seq FROM afterwards_tasks WHERE state = 'running' AND lease_until > ?
        UNION
        SELECT seq FROM afterwards_tasks INDEXED BY afterwards_expiring
        WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at > ? AND created_at > ?
            AND aside_from IS NULL
    )
    ORDER BY seq LIMIT ?
"""


PUT_SCHEDULES_RIGHT = "UPDATE afterwards_schedules SET after = ? WHERE after > ?"

PUT_WORKERS_RIGHT = "UPDATE afterwards_workers SET seen_at = ? WHERE seen_at > ?"

PUT_STARTS_RIGHT = "DELETE FROM afterwards_starts WHERE at > ?"

# Pruning. What does not say until when it is kept is kept: SQLite would count text as 0.

ANY_OVER = """
    SELECT 1 FROM afterwards_tasks
    WHERE finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= ?
        AND typeof(finished_at) = 'integer' AND typeof(coalesce(retention, 0)) = 'integer'
    LIMIT 1
"""

OVER = """
    SELECT id FROM afterwards_tasks
    WHERE finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= ?
        AND typeof(finished_at) = 'integer' AND typeof(coalesce(retention, 0)) = 'integer'
        AND id NOT IN (SELECT task FROM afterwards_behind)
    ORDER BY finished_at + coalesce(retention, 604800000000) LIMIT ?
"""

DELETE = "DELETE FROM afterwards_tasks WHERE id = ?"


# Uploaded files.


CHUNKS = "SELECT content FROM afterwards_chunks WHERE file = ? AND number >= ? AND number < ? ORDER BY number"

ANY_FILE = "SELECT 1 FROM afterwards_files LIMIT 1"


ANY_FILE_OVER = "SELECT 1 FROM afterwards_files WHERE until <= ? LIMIT 1"

FILES_OVER = """
    SELECT id, EXISTS (SELECT 1 FROM afterwards_tasks WHERE afterwards_tasks.id = afterwards_files.task)
    FROM afterwards_files WHERE until <= ? ORDER BY until LIMIT ?
"""


# Workers, and what waits for one.


SEEN_WORKERS = """
    SELECT id, host, pid, started_at, names, queues, slots, seen_at, has_left FROM afterwards_workers
    WHERE seen_at >= ? ORDER BY started_at, id
"""

ANY_FORGOTTEN = "SELECT 1 FROM afterwards_workers WHERE seen_at <= ? LIMIT 1"

FORGET = "DELETE FROM afterwards_workers WHERE seen_at <= ?"

DUE_ROUTES = "SELECT DISTINCT name, queue FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ?"

BACKLOG = """
    SELECT count(*), min(coalesce(queued_at, created_at)) FROM afterwards_tasks INDEXED BY afterwards_queued
    WHERE state = 'queued' AND limit_key = '' AND suspect IN (0, 1) AND queue = ? AND name = ?
        AND coalesce(queued_at, created_at) <= ?
"""

LIMITED_BACKLOG = """
    SELECT count(*), min(coalesce(queued_at, created_at)) FROM afterwards_tasks INDEXED BY afterwards_limited
    WHERE state = 'queued' AND limit_key != '' AND suspect IN (0, 1) AND queue = ? AND name = ?
        AND coalesce(queued_at, created_at) <= ?
"""

DUE_BACKLOG = """
    SELECT count(*), min(run_at) FROM afterwards_tasks INDEXED BY afterwards_scheduled
    WHERE state = 'scheduled' AND run_at <= ? AND queue = ? AND name = ?
"""
