"""The live stream of the API: what changes, as server-sent events."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query, Response
from starlette.types import Receive, Scope, Send

from afterwards.core.errors import UnknownTask
from afterwards.core.record import TaskRecord
from afterwards.core.task import Task
from afterwards.dashboard import numbers, shapes, site
from afterwards.dashboard.site import Visited
from afterwards.web import live
from afterwards.web.event_stream import EventStream, event
from afterwards.web.live import Overview, Watcher

T = TypeVar("T")

LONGEST = 600.0
"""Seconds after which a stream ends. A browser asks again, and `auth` decides again."""

EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["change", "task"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string"},
    },
}

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events", "content": {EventStream.media_type: {"schema": EVENT}}},
    404: {"model": shapes.Refused, "description": "No such task is stored"},
}

router = APIRouter()


@router.get("/stream", status_code=200, response_class=Response, responses=ANSWERS)
async def stream(
    site: Visited,
    task: Annotated[UUID | None, Query(description="Follow this task; its record is in each event")] = None,
) -> Any:
    """Follow what changes, as server-sent events: now, and after each change.

    Events `change` have the numbers of tasks, and the newest tasks without what is in them. With `task`, events `task`
    have its record, as in a list.
    """
    if task is None:
        return _Following(partial(live.watching_overview, site.client), _change)
    found = await (await site.engine()).get([str(task)])
    if not found:
        raise UnknownTask(str(task))
    return _Following(partial(live.watching_task, site.client, found[0]), _task)


class _Following(EventStream[T]):
    """A stream of which the dependencies that let the visitor in are not kept open."""

    def __init__(
        self, watch: Callable[[], AbstractContextManager[Watcher[T]]], events: Callable[[T], tuple[bytes, bool]]
    ) -> None:
        super().__init__(partial(_for_a_while, watch), events)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await site.release(scope)
        await super().__call__(scope, receive, send)


@contextmanager
def _for_a_while(watch: Callable[[], AbstractContextManager[Watcher[T]]]) -> Iterator[Watcher[T]]:
    with watch() as watcher:
        end = asyncio.get_running_loop().call_later(LONGEST, watcher.end)
        try:
            yield watcher
        finally:
            end.cancel()


def _change(overview: Overview) -> tuple[bytes, bool]:
    said = {
        **numbers.of(overview.summary.stats),
        "tasks": [
            {"id": task.id, "name": task.name, "queue": task.queue, "state": task.state, "attempt": task.attempt}
            for task in overview.summary.newest
        ],
    }
    return event("change", json.dumps(said)), True


def _task(task: Task) -> tuple[bytes, bool]:
    return event("task", json.dumps(TaskRecord.of(task).as_json())), True
