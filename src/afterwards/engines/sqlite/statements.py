"""The SQL of the engine. States are literals, for only then is a partial index certain to be used."""

from functools import cache, lru_cache

COLUMNS = """
    id, name, arguments, created_at, state, queue, priority, overrides, retention, origin, after, plain,
    attempt, failed, crashed, suspect, run_at, worker, lease_until, started_at, finished_at,
    cancel_requested, reason, cause, progress, result
"""

# Transactions.

BEGIN_WRITING = "BEGIN IMMEDIATE"  # DEFERRED fails at once, without waiting, when it has read before it writes
BEGIN_READING = "BEGIN"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

DATA_VERSION = "PRAGMA data_version"

# Reading.

GET = f"SELECT {COLUMNS} FROM tasks WHERE id = ?"

PLACE = "SELECT seq, id FROM tasks WHERE id = ?"

FAILURES = """
    SELECT attempt, at, worker, kind, type, message, traceback FROM failures WHERE task = ? ORDER BY rowid
"""

FIND = f"""
    SELECT {COLUMNS}, seq FROM tasks
    WHERE seq IN (SELECT seq FROM tasks {{index}} WHERE {{conditions}} ORDER BY seq DESC LIMIT ?)
"""

BEFORE = "seq < (SELECT seq FROM tasks WHERE id = ?)"

COUNTS = """
    SELECT queue, 'waiting', count(*) FROM tasks WHERE state = 'waiting' GROUP BY queue
    UNION ALL
    SELECT queue, 'scheduled', count(*) FROM tasks WHERE state = 'scheduled' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM tasks INDEXED BY tasks_queued WHERE state = 'queued' GROUP BY queue
    UNION ALL
    SELECT queue, 'running', count(*) FROM tasks WHERE state = 'running' GROUP BY queue
    UNION ALL
    SELECT queue, state, count(*) FROM tasks INDEXED BY tasks_ended WHERE finished_at IS NOT NULL GROUP BY state, queue
"""

OLDEST = """
    SELECT created_at FROM tasks
    WHERE seq = (SELECT min(seq) FROM tasks INDEXED BY tasks_queued WHERE state = 'queued')
"""

NEXT_DUE = "SELECT min(run_at) FROM tasks WHERE state = 'scheduled'"

# Storing.

INSERT = "INSERT INTO tasks ({columns}) VALUES {rows}"

INSERT_FAILURE = """
    INSERT INTO failures (task, attempt, at, worker, kind, type, message, traceback) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

PUBLISH = "UPDATE tasks SET state = 'queued', run_at = NULL WHERE id = ? AND attempt = ? AND state = 'scheduled'"

HOLD = "UPDATE tasks SET run_at = ? WHERE id = ? AND attempt = ? AND state = 'scheduled'"


@lru_cache
def insert(columns: tuple[str, ...], count: int) -> str:
    """The statement for so many tasks with these values: what is not named is NULL, and costs nothing to bind."""
    row = f"({', '.join('?' * len(columns))})"
    return INSERT.format(columns=", ".join(columns), rows=", ".join([row] * count))


@cache
def sized(statement: str, places: int) -> str:
    """The statement that names so many places or ids. Give few different numbers: each is prepared."""
    return statement.format(places=", ".join("?" * places))


# Claiming.

ANYTHING_READY = """
    SELECT EXISTS (SELECT 1 FROM tasks WHERE state = 'queued')
        OR EXISTS (SELECT 1 FROM tasks WHERE state = 'scheduled' AND run_at <= ?)
"""

ANY_DUE = "SELECT 1 FROM tasks WHERE state = 'scheduled' AND run_at <= ? LIMIT 1"

PROMOTE = """
    UPDATE tasks SET state = 'queued', run_at = NULL WHERE seq IN (
        SELECT seq FROM tasks WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?
    )
"""

NEXT_QUEUE = """
    SELECT queue FROM tasks WHERE state = 'queued' AND suspect = ? AND queue >= ? ORDER BY queue LIMIT 1
"""

NEXT_NAME = """
    SELECT name FROM tasks WHERE state = 'queued' AND suspect = ? AND queue = ? AND name >= ? ORDER BY name LIMIT 1
"""

LANE = """
    SELECT -priority, seq, suspect FROM tasks WHERE state = 'queued' AND suspect = ? AND queue = ? AND name = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

QUEUED_BY_ID = """
    SELECT -priority, seq, suspect, queue, name FROM tasks WHERE id = ? AND state = 'queued'
"""

TAKE = """
    UPDATE tasks SET
        state = 'running', attempt = attempt + 1, run_at = NULL, worker = ?, lease_until = ?, started_at = ?,
        progress = NULL
    WHERE seq IN ({places})
"""

TAKEN = f"SELECT {COLUMNS}, seq FROM tasks WHERE seq IN ({{places}})"

# Holding leases.

HEARTBEAT = """
    UPDATE tasks SET lease_until = ? WHERE id = ? AND attempt = ? AND state = 'running'
"""

PROGRESS = "UPDATE tasks SET progress = ? WHERE id = ?"

CANCEL_REQUESTED = "SELECT cancel_requested FROM tasks WHERE id = ?"

EXPIRED = f"SELECT {COLUMNS} FROM tasks WHERE state = 'running' AND lease_until <= ? ORDER BY lease_until, seq LIMIT ?"

EXPIRE = "UPDATE tasks SET lease_until = ? WHERE state = 'running' AND worker = ? AND lease_until > ?"

# Changing.

STILL_HELD = "SELECT id FROM tasks INDEXED BY tasks_id WHERE id IN ({places}) AND attempt = ? AND state = 'running'"

SUCCEED = """
    UPDATE tasks INDEXED BY tasks_id SET
        state = 'succeeded', failed = ?, crashed = ?, suspect = 0, lease_until = NULL, finished_at = ?,
        cancel_requested = NULL, reason = NULL, result = ?
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

UPDATE = """
    UPDATE tasks SET
        state = ?, attempt = ?, failed = ?, crashed = ?, suspect = ?, run_at = ?, worker = ?, lease_until = ?,
        started_at = ?, finished_at = ?, cancel_requested = ?, reason = ?, cause = ?, progress = ?, result = ?
    WHERE id = ?
"""

ANY_WAITING = "SELECT 1 FROM tasks WHERE state = 'waiting' LIMIT 1"

WAITING_BEHIND = f"SELECT {COLUMNS} FROM tasks WHERE state = 'waiting' AND after = ? ORDER BY seq"

CANCELLED_BEHIND = f"""
    SELECT {COLUMNS} FROM tasks INDEXED BY tasks_cancelled_for_another
    WHERE cause IS NOT NULL AND after = ? ORDER BY seq
"""

# Pruning.

ANY_OVER = """
    SELECT 1 FROM tasks
    WHERE finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= ?
    LIMIT 1
"""

OVER = """
    SELECT id FROM tasks
    WHERE finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= ?
    ORDER BY finished_at + coalesce(retention, 604800000000) LIMIT ?
"""

DELETE = "DELETE FROM tasks WHERE id = ?"

DELETE_FAILURES = "DELETE FROM failures WHERE task = ?"
