"""``afterwards pause``: no worker starts the tasks of a queue or task function, or no schedule fires, until resumed."""

from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.pausing import (
    NameOptions,
    QueueArguments,
    QueueOptions,
    ScheduleOptions,
    change,
    named_things,
)
from afterwards.cli.store import named


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
    change(store, things, lambda engine: engine.pause(things), as_json=as_json)
