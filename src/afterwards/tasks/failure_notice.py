"""``on_failure`` as a task function: each final failure is reported by a task of it."""

from afterwards.client.client import Client
from afterwards.core.task import FailedTask, NewTask
from afterwards.execution.failure_notice import MakeNotice
from afterwards.execution.function import Runnable
from afterwards.tasks.function import TaskFunction


def notice_maker(client: Client) -> MakeNotice:
    """Return a maker of tasks that report final failures. It returns None where ``on_failure`` is a plain function."""

    def notice(function: Runnable, failed: FailedTask) -> NewTask | None:
        told = function.on_failure
        return told.calls.unlimited_task(client, failed) if isinstance(told, TaskFunction) else None

    return notice
