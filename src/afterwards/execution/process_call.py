"""One call in a separate process, and the progress and log lines that arrive before its outcome."""

from collections.abc import Callable

from afterwards.core.progress import Progress
from afterwards.core.settling import Outcome
from afterwards.core.task import Task
from afterwards.execution import process_messages
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Runnable, options_of
from afterwards.execution.process_messages import Message


class ProcessCall:
    """A call for a process, and the progress that arrives before its outcome."""

    closed = False  # the source of the progress

    def __init__(self, function: Runnable, context: TaskContext, answer: Callable[[Outcome], object]) -> None:
        self.task: Task = context.task
        self.message = process_messages.call(function, context.task)
        self.timeout = options_of(function, context.task).timeout
        self.answer = answer
        self._context = context
        self._progress = Progress()

    def show(self, message: Message) -> None:
        """Show the progress and the log lines of a message."""
        if (progress := message.get("progress")) is not None:
            self._progress = Progress.of_text(progress)
            self._context.show(self)
            self._context.note()
        if (lines := process_messages.lines_of(message, self.task.attempt)) is not None:
            self._context.logs.replace(lines)

    def progress(self) -> Progress:
        return self._progress
