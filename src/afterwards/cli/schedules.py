"""``afterwards schedules``: the schedules of task functions, their last fire and their next one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from afterwards.cli import output, times
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import Store, named, run
from afterwards.core.errors import InvalidOption
from afterwards.core.schedule import StoredSchedule, next_fire, of_text
from afterwards.engine import Engine
from afterwards.tasks.registry import registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A schedule as it is listed."""

    name: str
    expression: str
    next_fire: datetime | None  # None while it is paused, and if this process cannot read the expression
    last_fire: datetime | None = None
    paused: bool = False


def schedules(as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """List the schedules, with their last and their next fire.

    If the application is loaded, those that no worker has seen yet are listed, too.
    """
    store = named(url, app)

    async def stored(engine: Engine) -> list[StoredSchedule]:
        return await engine.register_schedules({})

    now = times.now()
    found = _all(run(store, stored), store, now)
    if as_json:
        output.json_line([_json(one) for one in found])
    elif found:
        output.table(
            ["name", "schedule", "last", "next", ""],
            [
                [
                    one.name,
                    one.expression,
                    times.ago(one.last_fire, now) or "never",
                    times.ago(one.next_fire, now),
                    "paused" if one.paused else "",
                ]
                for one in found
            ],
        )
    else:
        output.say('no task function has a schedule. `@task(cron="0 3 * * *")` or `@task(every=60)` gives it one')


def _all(stored: list[StoredSchedule], store: Store, now: datetime) -> list[Shown]:
    names = {one.identity: one.name for one in registry} if store.client else {}
    found = [_shown(one, names.get(one.name, one.name), now) for one in stored]
    known = {one.name for one in stored}
    if store.client:
        found += [
            Shown(name=one.name, expression=str(one.schedule), next_fire=next_fire(one.schedule, now))
            for one in registry
            if one.schedule and one.identity not in known
        ]
    return sorted(found, key=lambda one: one.name)


def _shown(stored: StoredSchedule, name: str, now: datetime) -> Shown:
    try:
        schedule = of_text(stored.expression)
        at = None if stored.paused else next_fire(schedule, max(now, stored.after))
    except InvalidOption:  # a later version wrote it, or cronsim is not installed here
        at = None
    return Shown(
        name=name,
        expression=stored.expression,
        next_fire=at,
        last_fire=stored.last_fire,
        paused=stored.paused,
    )


def _json(one: Shown) -> dict[str, Any]:
    return {
        "name": one.name,
        "expression": one.expression,
        "next_fire": times.iso(one.next_fire),
        "last_fire": times.iso(one.last_fire),
        "paused": one.paused,
    }
