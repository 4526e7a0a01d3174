"""What becomes of schedules. Every function runs in a transaction that others share."""

from collections.abc import Collection, Mapping, Sequence

from afterwards import telemetry
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Task
from afterwards.engine import Fire
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import storing

IS_REGISTERED = "SELECT 1 FROM afterwards_schedules WHERE name = ? AND expression = ?"

REGISTER_SCHEDULE = """
    INSERT INTO afterwards_schedules (name, expression, after) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, after = excluded.after
    WHERE expression <> excluded.expression
"""

SCHEDULE = "SELECT name, expression, after, last_fire, paused FROM afterwards_schedules WHERE name = ?"

MAY_FIRE = "SELECT 1 FROM afterwards_schedules WHERE name = ? AND after < ? AND NOT paused"

FIRE = """
    UPDATE afterwards_schedules SET after = ?, last_fire = ? WHERE name = ? AND after < ? AND NOT paused
"""

PAUSE_SCHEDULE = "UPDATE afterwards_schedules SET paused = 1 WHERE name = ?"

RESUME_SCHEDULE = "UPDATE afterwards_schedules SET paused = 0, after = max(after, ?) WHERE name = ? AND paused"


def is_any_new(connection: Connection, expressions: Mapping[str, str]) -> bool:
    known = (connection.execute(IS_REGISTERED, one).fetchone() for one in expressions.items())
    return not all(known)


def register(connection: Connection, expressions: Mapping[str, str]) -> None:
    new = [(name, expression, connection.instant) for name, expression in expressions.items()]
    connection.executemany(REGISTER_SCHEDULE, new)


def schedules(connection: Connection, names: Collection[str]) -> list[StoredSchedule]:
    found = (connection.execute(SCHEDULE, (name,)).fetchone() for name in sorted(set(names)))
    kept = []
    for row in [row for row in found if row is not None]:
        try:
            kept.append(_to_schedule(row))
        except (TypeError, OverflowError) as error:
            telemetry.row_unreadable("schedule", str(row[0]), error)
    return kept


def may_any_fire(connection: Connection, fires: Sequence[Fire]) -> bool:
    """Whether another process has not been faster."""
    return any(connection.execute(MAY_FIRE, (one.schedule, rows.from_instant(one.at))).fetchone() for one in fires)


def fire(connection: Connection, fires: Sequence[Fire]) -> list[Task]:
    return storing.enqueue_or_raise(connection, [one.task for one in fires if _advance(connection, one)])


def pause(connection: Connection, names: Collection[str]) -> None:
    connection.executemany(PAUSE_SCHEDULE, [(name,) for name in names])


def resume(connection: Connection, names: Collection[str]) -> None:
    connection.executemany(RESUME_SCHEDULE, [(connection.instant, name) for name in names])


def _advance(connection: Connection, fire: Fire) -> bool:
    at = rows.from_instant(fire.at)
    return connection.execute(FIRE, (at, at, fire.schedule, at)).rowcount > 0


def _to_schedule(row: rows.Row) -> StoredSchedule:
    name, expression, after, last_fire, paused = row
    return StoredSchedule(
        name=name,
        expression=expression,
        after=rows.to_instant(after),
        last_fire=None if last_fire is None else rows.instant_or(last_fire, rows.to_instant(after)),
        paused=paused == 1,
    )
