"""List the schedules of this process's task functions for a worker's scheduler."""

from functools import partial

from afterwards.client.client import Client
from afterwards.tasks.registry import registry
from afterwards.worker.scheduler import Scheduled, Timetable


def timetable(client: Client) -> Timetable:
    """Return a function that lists the schedules, each with a function that makes the task of one fire."""

    def scheduled() -> list[Scheduled]:
        return [
            Scheduled(
                name=function.identity,
                schedule=function.schedule,
                missed=function.missed,
                call=partial(function.calls.unlimited_task, client, origin=f"schedule {function.schedule}"),
            )
            for function in registry
            if function.schedule
        ]

    return scheduled
