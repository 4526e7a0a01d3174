"""Store several calls at once, all or none."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.request import origin, request_tasks
from afterwards.client.uploads import Uploads, delete_unused, files_stored
from afterwards.core.already_called import called_already
from afterwards.core.errors import InvalidOption
from afterwards.core.task import NewTask
from afterwards.core.text import shown
from afterwards.dispatch.celery.calls import celery_task
from afterwards.tasks.function import Call, TaskFunction

ENCODED_AT_ONCE = 200
"""Calls that are encoded before other coroutines get their turn."""


class SeveralCalls:
    """Calls that will be stored together, in the order added."""

    def __init__(self, client: Client) -> None:
        """Raises WorkerUnfit in a request whose tasks would not run."""
        asked_by = request_tasks.get()
        if asked_by and not asked_by.answered and asked_by.client is client:
            client.must_work()
        self.tasks: list[NewTask] = []
        self._client = client
        self._calls: list[Call[Any]] = []
        self._uploads: list[Uploads] = []

    def add(self, call: Call[Any], *, after: str | None, chained: bool = False) -> None:
        """Encode a call. Raises UnstorableArgument, TooLarge, InvalidKey."""
        builder, id = call.function.calls, self._client.new_id()
        written = builder.write(call.args, call.kwargs, id, self._client)
        if written.uploads:
            self._uploads.append(written.uploads)
        new = builder.new_task(self._client, written, id=id, after=after, chained=chained, origin=origin())
        self.tasks.append(new)
        self._calls.append(call)

    async def store(self) -> list[TaskHandle[Any]]:
        """Store the calls, all or none. Returns their handles in order. Raises QueueFull, EngineError."""
        if asked_by := request_tasks.get():
            asked_by.used = True
        async with files_stored(self.tasks, self._uploads, self._client):
            stored = await self._client.enqueue_now(self.tasks)
        await delete_unused(self._uploads, stored, self._client)
        return [call.function.handle(task.id, self._client) for call, task in zip(self._calls, stored, strict=True)]


async def enqueue_many(calls: Iterable[Call[Any]], client: Client) -> list[TaskHandle[Any]]:
    """Store calls, all or none, independent of each other. Returns their handles in order."""
    if isinstance(calls, Call | TaskFunction | str) or not isinstance(calls, Iterable):
        raise InvalidOption(f"tasks.enqueue_many({shown(calls)}): give a list of calls, as [f.call(1), f.call(2)]")
    listed = [*calls]
    check_calls(listed, "tasks.enqueue_many([{}])")
    several = SeveralCalls(client)
    for number, call in enumerate(listed, 1):
        if call.function.has_session or call.function.has_connection:
            option = "session" if call.function.has_session else "connection"
            raise InvalidOption(
                f"{call.function.name} in enqueue_many: `{option}` cannot be set for it. Write "
                f"`await {call.function.name}.options({option}=...).enqueue(...)`, which that transaction stores"
            )
        several.add(call, after=call.function.calls.stored_after())
        if number % ENCODED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return await several.store() if listed else []


def check_calls(calls: Sequence[object], place: str) -> None:
    """Raise InvalidOption for an object that is not a call to be stored, such as a function's result.

    ``place`` is where they were given, with ``{}`` for the object.
    """
    wrong = [_no_call(one, place) for one in calls if not isinstance(one, Call)]  # all, to close all coroutines
    if wrong:
        raise InvalidOption(wrong[0])


def _no_call(given: object, place: str) -> str:
    if isinstance(given, TaskFunction):
        name = given.name
        right = place.format(f"{name}.call(...)")
        return f"{place.format(name)}: found a task function instead of a call: write `{right}`"
    if isinstance(given, TaskHandle):
        return (
            f"{place.format(shown(given))}: found a task that is stored already. To run a call after it, write "
            "f.options(after=handle).call(x)"
        )
    if celery_task(given) is not None:
        return (
            f"{place.format(shown(given))}: found a Celery task, which is sent to Celery and not stored: "
            "write `await tasks.enqueue(celery_task, 1)` for each call; it cannot be part of a chain"
        )
    return f"{place.format(shown(given))}: give calls, such as f.call(x): " + called_already(
        given, place.format("{}(1)"), place.format("{}.call(1)"), wanted="call"
    )
