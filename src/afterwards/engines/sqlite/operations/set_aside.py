"""Set aside unreadable tasks, so that all others go on. Every function runs in a transaction that others share."""

from collections.abc import Sequence

from afterwards.engines.sqlite import shapes
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Aside, Connection
from afterwards.engines.sqlite.operations import salvage
from afterwards.engines.sqlite.rows import Row
from afterwards.engines.sqlite.shapes import LATEST

SET_ASIDE = """
    UPDATE afterwards_tasks SET state = 'unreadable', aside_from = state, set_aside = ?
    WHERE seq = ? AND aside_from IS NULL
"""

# Rows that no index scan would ever reach. Each is found by one step in an index.
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


def put(connection: Connection, row: Row, reason: str) -> None:
    """Set aside a task whose row cannot be read. The values in the row stay unchanged."""
    if connection.execute(SET_ASIDE, (reason, row[-1])).rowcount:
        task = salvage.task_of(row, texts=True)
        connection.set_aside.append(Aside(task.id, task.name, reason))


def put_lost(connection: Connection, seqs: Sequence[int]) -> None:
    """Set aside the unreadable ones of these running tasks whose leases are still run out."""
    for seq in seqs:
        for row in connection.execute(STILL_LOST, (seq, connection.instant)).fetchall():
            _put_if_unreadable(connection, row)


def is_any_odd(connection: Connection) -> bool:
    return any(connection.execute(f"{one} LIMIT 1").fetchone() for one in LOST_TO_INDEXES)


def put_odd(connection: Connection) -> None:
    """Set aside tasks that no worker would ever find, because they have no place in any order."""
    for statement in LOST_TO_INDEXES:
        for [seq] in connection.execute(f"{statement} LIMIT 1000").fetchall():
            for row in connection.execute(BY_SEQ, (seq,)).fetchall():
                put(connection, row, _reason(connection, row) or "its columns give it no place in the order of claims")


def clear_lanes(connection: Connection) -> None:
    """Set aside tasks whose name, queue or limit key is not text: tasks behind them cannot be found."""
    for seq, *texts in connection.execute(ODD_LANES).fetchall():
        if not all(map(shapes.is_text, texts)):
            for row in connection.execute(BY_SEQ, (seq,)).fetchall():
                put(connection, row, _reason(connection, row) or "its name, queue or limit key is not text")
    connection.odd_lanes = False


def _put_if_unreadable(connection: Connection, row: Row) -> None:
    if reason := _reason(connection, row):
        put(connection, row, reason)


def _reason(connection: Connection, row: Row) -> str | None:
    return salvage.task_of(row, texts=connection.odd_texts).unreadable
