"""The pauses that people set. Every function runs in a transaction that others share."""

from dataclasses import replace

from afterwards.engine import Paused
from afterwards.engines.sqlite import many
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.shapes import is_text

PAUSE = "INSERT OR IGNORE INTO afterwards_paused (kind, name) VALUES {rows}"

RESUME = """
    WITH old (kind, name) AS (VALUES {rows})
    DELETE FROM afterwards_paused WHERE (kind, name) IN (SELECT kind, name FROM old)
"""

PAUSED_SCHEDULES = "SELECT name FROM afterwards_schedules WHERE paused"

PAUSE_SCHEDULES = "UPDATE afterwards_schedules SET paused = 1 WHERE name IN ({places})"

RESUME_SCHEDULES = """
    UPDATE afterwards_schedules SET paused = 0, after = max(after, ?) WHERE name IN ({places}) AND paused
"""


def paused(connection: Connection) -> Paused:
    schedules = frozenset(name for [name] in connection.execute(PAUSED_SCHEDULES) if is_text(name))
    return replace(connection.paused, schedules=schedules)


def pause(connection: Connection, paused: Paused) -> None:
    many.insert(connection, PAUSE, _rows(paused))
    many.change(connection, PAUSE_SCHEDULES, paused.schedules)
    connection.forget_paused()


def resume(connection: Connection, paused: Paused) -> None:
    many.update(connection, RESUME, _rows(paused))
    many.change(connection, RESUME_SCHEDULES, paused.schedules, before=(connection.instant,))
    connection.forget_paused()
    connection.queued = True


def _rows(paused: Paused) -> list[tuple[str, str]]:
    return [("queue", queue) for queue in paused.queues] + [("name", name) for name in paused.names]
