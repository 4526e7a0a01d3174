"""``chain``: calls that are stored together, each to run when the one before it has succeeded."""

import asyncio
from typing import Any

from afterwards.client import the_client
from afterwards.core.errors import InvalidOption
from afterwards.core.task import NewTask
from afterwards.functions import Call
from afterwards.handle import TaskHandle
from afterwards.publication import origin, publication
from afterwards.uploads import Uploads, files_stored


async def chain(*calls: Call[Any]) -> list[TaskHandle[Any]]:
    """Store calls, all or none, as ``await chain(resize.call(photo), publish.call(photo))``; their handles in order.

    Each begins when the one before it has succeeded. When one fails for good, is cancelled or expires, those behind it
    are cancelled, and their records say for whose sake. ``options(after=...)`` of the first puts all of them behind
    another task. Raises what ``enqueue`` raises.
    """
    client = the_client("a chain")
    asked_by = publication.get()
    if asked_by and not asked_by.answered:
        client.must_work()
    tasks: list[NewTask] = []
    uploads: list[Uploads] = []
    for call in calls:
        if not isinstance(call, Call):
            if asyncio.iscoroutine(call):
                call.close()
            raise InvalidOption(f"chain({call!r}): give calls that are not stored yet, as f.call(x)")
        if call.function.has_session or (tasks and call.function.settings.after is not None):
            raise InvalidOption(f"{call.function.name} in a chain: neither `session` nor `after` can be set for it")
        id = client.new_id()
        written = call.function.written(call.args, call.kwargs, id, client)
        if written.uploads:
            uploads.append(written.uploads)
        before = tasks[-1].id if tasks else call.function.stored_after()
        tasks.append(call.function.new_task(client, written, id=id, after=before, chained=bool(tasks), origin=origin()))
    if asked_by:
        asked_by.used = True
    async with files_stored(tasks, uploads, client):
        stored = await client.enqueue_now(tasks)
    return [call.function.handle(task.id, client) for call, task in zip(calls, stored, strict=True)]
