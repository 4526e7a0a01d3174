"""Register and fire schedules. Every function runs in a transaction that others share."""

from collections.abc import Mapping, Sequence

from afterwards import telemetry
from afterwards.core import schedule
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Task
from afterwards.engine import Fire
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import storing

SCHEDULES = "SELECT name, expression, after, last_fire, paused FROM afterwards_schedules ORDER BY name"

REGISTER_SCHEDULES = """
    INSERT INTO afterwards_schedules (name, expression, after) VALUES {rows}
    ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, after = excluded.after
    WHERE expression <> excluded.expression
"""

FIRE_ALL = """
    WITH new (name, last) AS (VALUES {rows})
    UPDATE afterwards_schedules SET (after, last_fire) = (
        SELECT last, last FROM new WHERE new.name = afterwards_schedules.name
    )
    WHERE name IN (SELECT name FROM new)
"""


def is_any_new(connection: Connection, expressions: Mapping[str, str]) -> bool:
    known = {name: expression for name, expression, *_ in connection.execute(SCHEDULES)}
    return any(known.get(name) != expression for name, expression in expressions.items())


def register(connection: Connection, expressions: Mapping[str, str]) -> None:
    new = [(name, expression, connection.instant) for name, expression in expressions.items()]
    many.insert(connection, REGISTER_SCHEDULES, new)


def schedules(connection: Connection) -> list[StoredSchedule]:
    """Return the schedules that can be read, by name."""
    kept = []
    for row in connection.execute(SCHEDULES).fetchall():
        try:
            kept.append(_to_schedule(row))
        except (TypeError, OverflowError) as error:
            telemetry.row_unreadable("schedule", str(row[0]), error)
    return kept


def may_any_fire(connection: Connection, fires: Sequence[Fire]) -> bool:
    """Return True unless other processes have already stored all these fires."""
    kept = {one.name: one for one in schedules(connection)}
    return any(one.schedule in kept and schedule.fired(kept[one.schedule], one.at) for one in fires)


def fire(connection: Connection, fires: Sequence[Fire]) -> list[Task]:
    kept = {one.name: one for one in schedules(connection)}
    fired: list[Fire] = []
    for one in fires:
        if (before := kept.get(one.schedule)) and (after := schedule.fired(before, one.at)):
            kept[one.schedule] = after
            fired.append(one)
    last = {one.schedule: rows.from_instant(one.at) for one in fired}
    many.update(connection, FIRE_ALL, [*last.items()])
    return storing.enqueue_or_raise(connection, [one.task for one in fired])


def _to_schedule(row: rows.Row) -> StoredSchedule:
    name, expression, after, last_fire, paused = row
    return StoredSchedule(
        name=name,
        expression=expression,
        after=rows.to_instant(after),
        last_fire=None if last_fire is None else rows.instant_or(last_fire, rows.to_instant(after)),
        paused=paused == 1,
    )
