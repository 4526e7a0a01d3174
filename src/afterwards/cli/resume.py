"""``afterwards resume``: end the pause of queues, task functions or schedules."""

from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.pausing import (
    NameOptions,
    QueueArguments,
    QueueOptions,
    ScheduleOptions,
    check_schedules,
    named_things,
    told,
)
from afterwards.cli.store import named, run
from afterwards.engine import Engine, Paused


def resume(
    queues: QueueArguments = None,
    queue: QueueOptions = None,
    name: NameOptions = None,
    schedule: ScheduleOptions = None,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """End the pause of queues, task functions or schedules.

    A schedule fires from now on: what it missed is skipped.
    """
    store = named(url, app)
    things = named_things([*(queues or ()), *(queue or ())], name, schedule, store)

    async def resumed(engine: Engine) -> Paused:
        await check_schedules(engine, things, store)
        await engine.resume(things)
        return await engine.paused()

    told(run(store, resumed), as_json=as_json)
