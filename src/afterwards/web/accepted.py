"""The answer 202 to a request whose task is stored."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.routing import NoMatchFound
from starlette.types import Receive, Scope, Send

from afterwards.client.handle import TaskHandle
from afterwards.core.errors import InvalidOption
from afterwards.web.task_router import routes_for

RETRY_AFTER = "1"
"""Seconds after which a client should ask for its task."""


class Accepted(JSONResponse):
    """202 with the id of a task, and the path of its status."""

    def __init__(self, handle: TaskHandle[Any]) -> None:
        if not isinstance(handle, TaskHandle):
            raise InvalidOption(
                f"accepted({handle!r}): give the handle that add_task or enqueue returned for a @task function"
            )
        super().__init__({"id": handle.id}, status_code=202, headers={"Retry-After": RETRY_AFTER})
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. The task is stored by now, and may be another one than was added: a uniqueness rule decides."""
        self.body = self.render({"id": self._handle.id})
        self.headers["Content-Length"] = str(len(self.body))
        if "location" not in self.headers and (path := _path(Request(scope), self._handle)):
            self.headers["Location"] = path
        await super().__call__(scope, receive, send)


def _path(request: Request, handle: TaskHandle[Any]) -> str | None:
    """Return the path of the task's status in the first router that answers for it; None without one."""
    for route in routes_for(handle.client, handle.name):
        try:
            return request.url_for(route, id=handle.id).path
        except NoMatchFound:
            continue
    return None
