"""``f.options(session=...).enqueue(...)``: store a call by the next commit of a session."""

import asyncio
from functools import partial
from typing import Any

from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.request import RequestTasks, origin, request_tasks
from afterwards.client.sqlalchemy import Alone, join_alone
from afterwards.client.uploads import delete_files, files_stored
from afterwards.tasks.call import CallBuilder, WrittenCall


def join_session(
    session: Any,
    calls: CallBuilder,
    written: WrittenCall,
    handle: TaskHandle[Any],
    client: Client,
    *,
    loop: asyncio.AbstractEventLoop | None,
) -> None:
    """Register a call with a session: its next commit stores it. ``loop`` is the caller's event loop, if any."""
    asked_by = request_tasks.get()
    request = RequestTasks(client, origin=origin(), at_once=True, loop=loop)
    new = calls.new_task(client, written, id=handle.id, after=calls.stored_after(), origin=request.origin)
    clean_up = partial(delete_files, [written.uploads], client) if written.uploads else None
    joining = join_alone(session, Alone(new, handle, request, clean_up))
    if asked_by:
        asked_by.used = True
        asked_by.watch(joining)


async def store_files(calls: CallBuilder, written: WrittenCall, id: str, client: Client) -> None:
    """Store the files of a call whose session commits later."""
    new = calls.new_task(client, written, id=id, after=calls.stored_after())
    async with files_stored([new], [written.uploads] if written.uploads else [], client):
        pass
