"""Register and fire schedules."""

from collections.abc import Mapping, Sequence

from afterwards.core import schedule
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Task
from afterwards.engine import Fire
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import storing
from afterwards.engines.postgres.rows import Row, as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

_COLUMNS = "name, expression, after, last_fire, paused"

SCHEDULES = f"SELECT {_COLUMNS} FROM afterwards_schedules ORDER BY name"

LOCK_SCHEDULES = f"SELECT {_COLUMNS} FROM afterwards_schedules WHERE name = ANY (%s::text[]) ORDER BY name FOR UPDATE"

# A translation of `schedule.registered`.
REGISTER = f"""
    INSERT INTO afterwards_schedules AS s (name, expression, after)
    SELECT name, expression, %s::bigint FROM {recordset("new", ["name"], expression="text")} ORDER BY name
    ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, after = excluded.after
    WHERE s.expression <> excluded.expression
"""

FIRE_ALL = f"""
    UPDATE afterwards_schedules s SET after = new.last, last_fire = new.last
    FROM {recordset("new", ["name"], last="bigint")} WHERE s.name = new.name
"""


def register(work: Work, expressions: Mapping[str, str]) -> Operation[None]:
    some = as_json({"name": name, "expression": expression} for name, expression in expressions.items())
    yield from change(REGISTER, work.instant, some)


def schedules(work: Work) -> Operation[list[StoredSchedule]]:
    return [to_schedule(row) for row in (yield from fetch(SCHEDULES))]


def may_any_fire(kept: Sequence[StoredSchedule], fires: Sequence[Fire]) -> bool:
    """Return True unless other processes have already stored all these fires."""
    by_name = {one.name: one for one in kept}
    return any(one.schedule in by_name and schedule.fired(by_name[one.schedule], one.at) for one in fires)


def fire(work: Work, fires: Sequence[Fire]) -> Operation[list[Task]]:
    found = yield from fetch(LOCK_SCHEDULES, sorted({one.schedule for one in fires}))
    kept = {one.name: one for one in map(to_schedule, found)}
    fired: list[Fire] = []
    for one in fires:
        if (before := kept.get(one.schedule)) and (after := schedule.fired(before, one.at)):
            kept[one.schedule] = after
            fired.append(one)
    if not fired:
        return []
    last = {one.schedule: rows.from_instant(one.at) for one in fired}
    yield from change(FIRE_ALL, as_json({"name": name, "last": at} for name, at in last.items()))
    return (yield from storing.enqueue_or_raise(work, [one.task for one in fired]))


def to_schedule(row: Row) -> StoredSchedule:
    """Return a row of a schedule's columns."""
    name, expression, after, last_fire, paused = row
    return StoredSchedule(
        name=name,
        expression=expression,
        after=rows.to_instant(min(after, rows.LATEST)),
        last_fire=rows.to_instant_or_none(last_fire),
        paused=paused,
    )
