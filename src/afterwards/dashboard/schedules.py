"""The schedules of an installation: those that this process knows, and those that other processes have stored."""

from afterwards import telemetry
from afterwards.core.errors import NotScheduled, UnknownFunction
from afterwards.core.schedule import StoredSchedule, expression_and_zone
from afterwards.dashboard import actions
from afterwards.dashboard.site import Site
from afterwards.engine import Paused
from afterwards.tasks.registry import registry
from afterwards.tasks.schedules import ScheduleDesk, ScheduleRecord


async def schedules(site: Site) -> list[ScheduleRecord]:
    """Return all schedules, by name. Of those that no function here has, the next fire is not known."""
    stored = await (await site.engine()).register_schedules({})
    here = {function.identity for function in registry if function.schedule}
    others = [_of_others(one) for one in stored if one.name not in here]
    return sorted([*await ScheduleDesk(site.client).list(), *others], key=lambda one: one.name)


async def pause(site: Site, name: str) -> bool:
    """Pause a schedule. Returns False if there is none of this name."""
    try:
        await ScheduleDesk(site.client).pause(name)
        telemetry.acted(site.who, "pause", f"schedule {name}")
    except (UnknownFunction, NotScheduled):
        if not await _is_stored(site, name):
            return False
        await actions.pause(site, Paused(schedules=frozenset({name})))
    return True


async def resume(site: Site, name: str) -> bool:
    """Resume a schedule. Returns False if there is none of this name."""
    try:
        await ScheduleDesk(site.client).resume(name)
        telemetry.acted(site.who, "resume", f"schedule {name}")
    except (UnknownFunction, NotScheduled):
        if not await _is_stored(site, name):
            return False
        await actions.resume(site, Paused(schedules=frozenset({name})))
    return True


async def _is_stored(site: Site, name: str) -> bool:
    return any(one.name == name for one in await (await site.engine()).register_schedules({}))


def _of_others(stored: StoredSchedule) -> ScheduleRecord:
    """Return the record of a schedule that another process has stored."""
    expression, tz = expression_and_zone(stored.expression)
    return ScheduleRecord(
        name=stored.name,
        expression=expression,
        tz=tz,
        next_fire=None,
        last_fire=stored.last_fire,
        paused=stored.paused,
    )
