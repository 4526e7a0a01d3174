"""Delete records: over time, and by hand. Every function runs in a transaction that others share."""

from collections.abc import Sequence

from afterwards.core.clock_correction import CORRECTION
from afterwards.core.dispatching import FORGOTTEN_AFTER
from afterwards.core.tallies import KEPT
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

# Tasks behind which some are not decided on yet are kept, because those would be cancelled.
FINISHED = """
    SELECT id FROM afterwards_tasks
    WHERE id IN ({places}) AND state IN ('succeeded', 'failed', 'cancelled')
        AND id NOT IN (SELECT task FROM afterwards_behind)
"""

DELETE_TASKS = "DELETE FROM afterwards_tasks WHERE id IN ({places})"

DELETE_FAILURES = "DELETE FROM afterwards_failures WHERE task IN ({places})"

DELETE_ALIASES = "DELETE FROM afterwards_aliases WHERE task IN ({places})"

DELETE_STARTS = "DELETE FROM afterwards_starts WHERE until <= ?"

ANY_OLD_TALLY = "SELECT 1 FROM afterwards_tallies WHERE at <= ? LIMIT 1"

DELETE_TALLIES = "DELETE FROM afterwards_tallies WHERE at <= ?"

ANY_OLD_DISPATCH = "SELECT 1 FROM afterwards_dispatches WHERE at <= ? OR at > ? LIMIT 1"

DELETE_DISPATCHES = "DELETE FROM afterwards_dispatches WHERE at <= ? OR at > ?"


def prune(connection: Connection, limit: int) -> int:
    keys = rows.all_raw(key for [key] in connection.execute(OVER, (connection.instant, limit)))
    forget(connection, keys)
    files.release(connection, keys)
    connection.execute(DELETE_STARTS, (connection.instant,))
    return len(keys)


def delete(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Delete those of the tasks that have finished. Returns their ids in the order given."""
    found = {key for [key] in many.select(connection, FINISHED, [rows.key(id) for id in ids])}
    deleted = [id for id in ids if bytes(rows.key(id)) in found]
    keys = [rows.key(id) for id in deleted]
    forget(connection, keys)
    files.release(connection, keys)
    return deleted


def forget(connection: Connection, keys: Sequence[bytearray]) -> None:
    """Delete tasks, with everything that is kept of them but their files."""
    for statement in (DELETE_TASKS, DELETE_FAILURES, DELETE_ALIASES):  # a trigger deletes their logs
        many.change(connection, statement, keys)


def is_any_tally_old(connection: Connection) -> bool:
    return connection.execute(ANY_OLD_TALLY, (connection.after(-KEPT),)).fetchone() is not None


def delete_old_tallies(connection: Connection) -> None:
    connection.execute(DELETE_TALLIES, (connection.after(-KEPT),))


def is_any_dispatch_old(connection: Connection) -> bool:
    return connection.execute(ANY_OLD_DISPATCH, _remembered(connection)).fetchone() is not None


def delete_old_dispatches(connection: Connection) -> None:
    connection.execute(DELETE_DISPATCHES, _remembered(connection))


def _remembered(connection: Connection) -> tuple[int, int]:
    """Return the instants between which a dispatch is remembered. They translate ``dispatching.forgotten``."""
    return connection.after(-FORGOTTEN_AFTER), connection.after(CORRECTION)


def is_any_over(connection: Connection) -> bool:
    return connection.execute(ANY_OVER, (connection.instant,)).fetchone() is not None
