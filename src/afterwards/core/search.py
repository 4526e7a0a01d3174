"""The search for a text in tasks."""

from afterwards.core.task import Task

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def folded(text: str) -> str:
    """Return a text with ASCII letters in lower case, as every engine can compare it."""
    return text.translate(_LOWER)


def contains(task: Task, text: str) -> bool:
    """Return True if a text is in a task's id, name, request, arguments, or its failures' types and messages.

    Case is ignored for ASCII letters. The arguments and failures of a task with secrets are not searched: the answers
    would tell the secrets letter by letter.
    """
    places = [task.id, task.name, task.origin or ""]
    if not task.secrets:
        places += [task.arguments, *(f"{failure.type}: {failure.message}" for failure in task.failures)]
    return any(folded(text) in folded(place) for place in places)
