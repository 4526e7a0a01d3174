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

# The schema. Its version has a table of its own, for the file may be an application's database.

HAS_VERSION = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'afterwards_schema')"

GET_VERSION = "SELECT version FROM afterwards_schema"

SET_VERSION = "INSERT OR REPLACE INTO afterwards_schema (one, version) VALUES (1, ?)"

IS_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)"

# Reading.

GET = f"SELECT {COLUMNS} FROM afterwards_tasks WHERE id = ?"

PLACE = "SELECT seq, id FROM afterwards_tasks WHERE id = ?"

FAILURES = """
    SELECT attempt, at, worker, kind, type, message, traceback FROM afterwards_failures WHERE task = ? ORDER BY rowid
"""

FIND = f"""
    SELECT {COLUMNS}, seq FROM afterwards_tasks
    WHERE seq IN (SELECT seq FROM afterwards_tasks {{index}} WHERE {{conditions}} ORDER BY seq DESC LIMIT ?)
"""

BEFORE = "seq < (SELECT seq FROM afterwards_tasks WHERE id = ?)"

COUNTS = """
    SELECT queue, 'waiting', count(*) FROM afterwards_tasks WHERE state = 'waiting' GROUP BY queue
    UNION ALL
    SELECT queue, 'scheduled', count(*) FROM afterwards_tasks WHERE state = 'scheduled' GROUP BY queue
    UNION ALL
    SELECT queue, 'queued', count(*) FROM afterwards_tasks INDEXED BY afterwards_queued
    WHERE state = 'queued' GROUP BY queue
    UNION ALL
    SELECT queue, 'running', count(*) FROM afterwards_tasks WHERE state = 'running' GROUP BY queue
    UNION ALL
    SELECT queue, state, count(*) FROM afterwards_tasks INDEXED BY afterwards_ended
    WHERE finished_at IS NOT NULL GROUP BY state, queue
"""

OLDEST = """
    SELECT created_at FROM afterwards_tasks
    WHERE seq = (SELECT min(seq) FROM afterwards_tasks INDEXED BY afterwards_queued WHERE state = 'queued')
"""

NEXT_DUE = "SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled'"

# Storing.

INSERT = "INSERT INTO afterwards_tasks ({columns}) VALUES {rows}"

INSERT_FAILURE = """
    INSERT INTO afterwards_failures (task, attempt, at, worker, kind, type, message, traceback)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

PUBLISH = (
    "UPDATE afterwards_tasks SET state = 'queued', run_at = NULL WHERE id = ? AND attempt = ? AND state = 'scheduled'"
)

HOLD = "UPDATE afterwards_tasks SET run_at = ? WHERE id = ? AND attempt = ? AND state = 'scheduled'"


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
    SELECT EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'queued')
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ?)
"""

ANY_DUE = "SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ? LIMIT 1"

PROMOTE = """
    UPDATE afterwards_tasks SET state = 'queued', run_at = NULL WHERE seq IN (
        SELECT seq FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?
    )
"""

NEXT_QUEUE = """
    SELECT queue FROM afterwards_tasks WHERE state = 'queued' AND suspect = ? AND queue >= ? ORDER BY queue LIMIT 1
"""

NEXT_NAME = """
    SELECT name FROM afterwards_tasks WHERE state = 'queued' AND suspect = ? AND queue = ? AND name >= ?
    ORDER BY name LIMIT 1
"""

LANE = """
    SELECT -priority, seq, suspect FROM afterwards_tasks
    WHERE state = 'queued' AND suspect = ? AND queue = ? AND name = ?
    ORDER BY priority DESC, seq LIMIT ?
"""

QUEUED_BY_ID = """
    SELECT -priority, seq, suspect, queue, name FROM afterwards_tasks WHERE id = ? AND state = 'queued'
"""

TAKE = """
    UPDATE afterwards_tasks SET
        state = 'running', attempt = attempt + 1, run_at = NULL, worker = ?, lease_until = ?, started_at = ?,
        progress = NULL
    WHERE seq IN ({places})
"""

TAKEN = f"SELECT {COLUMNS}, seq FROM afterwards_tasks WHERE seq IN ({{places}})"

# Holding leases.

HEARTBEAT = """
    UPDATE afterwards_tasks SET lease_until = ? WHERE id = ? AND attempt = ? AND state = 'running'
"""

PROGRESS = "UPDATE afterwards_tasks SET progress = ? WHERE id = ?"

CANCEL_REQUESTED = "SELECT cancel_requested FROM afterwards_tasks WHERE id = ?"

EXPIRED = f"""
    SELECT {COLUMNS} FROM afterwards_tasks WHERE state = 'running' AND lease_until <= ?
    ORDER BY lease_until, seq LIMIT ?
"""

EXPIRE = "UPDATE afterwards_tasks SET lease_until = ? WHERE state = 'running' AND worker = ? AND lease_until > ?"

# Changing.

STILL_HELD = """
    SELECT id FROM afterwards_tasks INDEXED BY afterwards_id
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

SUCCEED = """
    UPDATE afterwards_tasks INDEXED BY afterwards_id SET
        state = 'succeeded', failed = ?, crashed = ?, suspect = 0, lease_until = NULL, finished_at = ?,
        cancel_requested = NULL, reason = NULL, result = ?
    WHERE id IN ({places}) AND attempt = ? AND state = 'running'
"""

UPDATE = """
    UPDATE afterwards_tasks SET
        state = ?, attempt = ?, failed = ?, crashed = ?, suspect = ?, run_at = ?, worker = ?, lease_until = ?,
        started_at = ?, finished_at = ?, cancel_requested = ?, reason = ?, cause = ?, progress = ?, result = ?
    WHERE id = ?
"""

ANY_WAITING = "SELECT 1 FROM afterwards_tasks WHERE state = 'waiting' LIMIT 1"

WAITING_BEHIND = f"SELECT {COLUMNS} FROM afterwards_tasks WHERE state = 'waiting' AND after = ? ORDER BY seq"

CANCELLED_BEHIND = f"""
    SELECT {COLUMNS} FROM afterwards_tasks INDEXED BY afterwards_cancelled_for_another
    WHERE cause IS NOT NULL AND after = ? ORDER BY seq
"""

# Pruning.

ANY_OVER = """
    SELECT 1 FROM afterwards_tasks
    WHERE finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= ?
    LIMIT 1
"""

OVER = """
    SELECT id FROM afterwards_tasks
    WHERE finished_at IS NOT NULL AND finished_at + coalesce(retention, 604800000000) <= ?
    ORDER BY finished_at + coalesce(retention, 604800000000) LIMIT ?
"""

DELETE = "DELETE FROM afterwards_tasks WHERE id = ?"

DELETE_FAILURES = "DELETE FROM afterwards_failures WHERE task = ?"

# Schedules.

IS_REGISTERED = "SELECT 1 FROM afterwards_schedules WHERE name = ? AND expression = ?"

REGISTER_SCHEDULE = """
    INSERT INTO afterwards_schedules (name, expression, after) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, after = excluded.after
    WHERE expression <> excluded.expression
"""

SCHEDULE = "SELECT name, expression, after, last_fire, paused FROM afterwards_schedules WHERE name = ?"

MAY_FIRE = "SELECT 1 FROM afterwards_schedules WHERE name = ? AND after < ? AND NOT paused"

FIRE = """
    UPDATE afterwards_schedules SET after = :at, last_fire = :at WHERE name = :name AND after < :at AND NOT paused
"""

PAUSE_SCHEDULE = "UPDATE afterwards_schedules SET paused = 1 WHERE name = ?"

RESUME_SCHEDULE = "UPDATE afterwards_schedules SET paused = 0, after = max(after, ?) WHERE name = ? AND paused"
