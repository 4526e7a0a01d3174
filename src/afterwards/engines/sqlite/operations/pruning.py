"""Delete records whose retention is over. Every function runs in a transaction that others share."""

from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import files

# Records without a readable end of their retention are kept: SQLite would count text as 0.

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

DELETE_TASKS = "DELETE FROM afterwards_tasks WHERE id IN ({places})"

DELETE_FAILURES = "DELETE FROM afterwards_failures WHERE task IN ({places})"

DELETE_ALIASES = "DELETE FROM afterwards_aliases WHERE task IN ({places})"

DELETE_STARTS = "DELETE FROM afterwards_starts WHERE until <= ?"


def prune(connection: Connection, limit: int) -> int:
    keys = rows.all_raw(key for [key] in connection.execute(OVER, (connection.instant, limit)))
    for statement in (DELETE_TASKS, DELETE_FAILURES, DELETE_ALIASES):
        many.change(connection, statement, keys)
    connection.execute(DELETE_STARTS, (connection.instant,))
    files.release(connection, keys)
    return len(keys)


def is_any_over(connection: Connection) -> bool:
    return connection.execute(ANY_OVER, (connection.instant,)).fetchone() is not None
