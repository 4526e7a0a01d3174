"""``afterwards pause``: no worker starts the tasks of a queue or task function, or no schedule fires, until resumed."""

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


def pause(
    queues: QueueArguments = None,
    queue: QueueOptions = None,
    name: NameOptions = None,
    schedule: ScheduleOptions = None,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Pause queues, task functions or schedules, in all processes.

    Running tasks go on, and tasks are still stored. It lasts until `afterwards resume`, also after restarts.
    """
    store = named(url, app)
    things = named_things([*(queues or ()), *(queue or ())], name, schedule, store)

    async def paused(engine: Engine) -> Paused:
        await check_schedules(engine, things, store)
        await engine.pause(things)
        return await engine.paused()

    told(run(store, paused), as_json=as_json)
