"""The names of OpenTelemetry's messaging conventions (1.44, in development), and ours beside them."""

from collections.abc import Sequence
from typing import Final

from afterwards.core.task import NewTask, Task
from afterwards.core.text import type_name

SCOPE: Final = "afterwards"
"""The name of our tracer and our meter."""

BATCH: Final = "messaging.batch.message_count"
DESTINATION: Final = "messaging.destination.name"
ERROR_TYPE: Final = "error.type"
ATTEMPT: Final = "afterwards.task.attempt"
TASK_ID: Final = "messaging.message.id"
TASK_NAME: Final = "afterwards.task.name"

SENT: Final = "messaging.client.sent.messages"
CONSUMED: Final = "messaging.client.consumed.messages"
PROCESS_DURATION: Final = "messaging.process.duration"
REFUSED: Final = "afterwards.attempts.refused"
LOST: Final = "afterwards.leases.lost"

Attributes = dict[str, str | int]


def operation(name: str) -> Attributes:
    """Return the attributes of an operation, ``send`` or ``process``."""
    return {"messaging.system": "afterwards", "messaging.operation.name": name, "messaging.operation.type": name}


def sending_of(tasks: Sequence[NewTask]) -> Attributes:
    """Return the attributes of the span in which tasks are stored. Never their arguments."""
    attributes = operation("send")
    if len({task.queue for task in tasks}) == 1:
        attributes[DESTINATION] = tasks[0].queue
    if len(tasks) == 1:
        attributes |= {TASK_ID: tasks[0].id, TASK_NAME: tasks[0].name}
    else:
        attributes[BATCH] = len(tasks)
    return attributes


def attempt_of(task: Task) -> Attributes:
    """Return the attributes of an attempt's span. Never its arguments or its result."""
    about: Attributes = {DESTINATION: task.queue, TASK_ID: task.id, TASK_NAME: task.name, ATTEMPT: task.attempt}
    return operation("process") | about


def error_type(error: BaseException) -> str:
    """Return the name of an exception's class, with its module unless it is Python's own. Never raises."""
    module, name = getattr(type(error), "__module__", None), type_name(error)
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name
