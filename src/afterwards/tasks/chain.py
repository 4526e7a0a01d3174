"""``chain``: calls that are stored together, each to run when the one before it has succeeded."""

from collections.abc import Sequence
from typing import Any

from afterwards.client.handle import TaskHandle
from afterwards.client.installations import the_client
from afterwards.client.request import origin, request_tasks
from afterwards.client.uploads import Uploads, files_stored
from afterwards.core.already_called import called_already
from afterwards.core.errors import InvalidOption
from afterwards.core.task import NewTask
from afterwards.core.text import shown
from afterwards.tasks.function import Call, TaskFunction


async def chain(*calls: Call[Any]) -> list[TaskHandle[Any]]:
    """Store calls, all or none: ``await chain(resize.call(photo), publish.call(photo))``. Return handles in this order.

    Each begins when the one before it has succeeded. When one fails for good, is cancelled or expires, its successors
    are cancelled, and their records name that task. ``options(after=...)`` of the first makes all of them successors
    of another task. Raises what ``enqueue`` raises.
    """
    _check_calls(calls)
    client = the_client("a chain")
    asked_by = request_tasks.get()
    if asked_by and not asked_by.answered:
        client.must_work()
    tasks: list[NewTask] = []
    uploads: list[Uploads] = []
    for call in calls:
        if (
            call.function.has_session
            or call.function.has_connection
            or (tasks and call.function.settings.after is not None)
        ):
            raise InvalidOption(
                f"{call.function.name} in a chain: neither `session` nor `connection` nor `after` can be set"
            )
        id = client.new_id()
        written = call.function.calls.write(call.args, call.kwargs, id, client)
        if written.uploads:
            uploads.append(written.uploads)
        before = tasks[-1].id if tasks else call.function.calls.stored_after()
        new = call.function.calls.new_task(client, written, id=id, after=before, chained=bool(tasks), origin=origin())
        tasks.append(new)
    if asked_by:
        asked_by.used = True
    async with files_stored(tasks, uploads, client):
        stored = await client.enqueue_now(tasks)
    return [call.function.handle(task.id, client) for call, task in zip(calls, stored, strict=True)]


def _check_calls(calls: Sequence[object]) -> None:
    """Raise InvalidOption for an object that is not a call to be stored, such as a function's result."""
    wrong = [_no_call(one) for one in calls if not isinstance(one, Call)]  # all of them, to close all coroutines
    if wrong:
        raise InvalidOption(wrong[0])


def _no_call(given: object) -> str:
    if isinstance(given, TaskFunction):
        name = given.name
        return f"chain({name}): give calls that are not stored yet, as f.call(x): write `chain({name}.call(...))`"
    if isinstance(given, TaskHandle):
        return (
            f"chain({shown(given)}): it is stored already, and can come before a call: f.options(after=handle).call(x)"
        )
    return f"chain({shown(given)}): give calls that are not stored yet, as f.call(x): " + called_already(
        given, "chain({}(1))", "chain({}.call(1))", wanted="call"
    )
