"""``afterwards resume``: end the pause of queues, task functions or schedules."""

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
    change(store, things, lambda engine: engine.resume(things), as_json=as_json)
