"""The JSON API below ``{prefix}/api``: the tasks. ``api_parts`` has the rest."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query

from afterwards.client import steering
from afterwards.core.errors import UnknownTask
from afterwards.core.record import TaskRecord
from afterwards.core.task import Task
from afterwards.dashboard import api_parts, shapes, stream
from afterwards.dashboard.actions import Action, perform
from afterwards.dashboard.answers import Json
from afterwards.dashboard.filters import Asked, Listing, Selection, each_once
from afterwards.dashboard.site import Acting, Visited

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": shapes.Refused, "description": "The body is no text"},
    401: {"model": shapes.Refused, "description": "The application's `auth` refuses the visitor"},
    403: {"model": shapes.Refused, "description": "The visitor may not do this, or another site has sent the request"},
    422: {"model": shapes.Unprocessable, "description": "A parameter is wrong; `loc` names it"},
    503: {"model": shapes.Refused, "description": "The task store is away; `Retry-After` says when to ask again"},
}

router = APIRouter(responses=REFUSALS, dependencies=[Depends(each_once)])
router.include_router(api_parts.router)
router.include_router(stream.router)


def _changing(action: Action) -> Callable[..., Awaitable[shapes.Changed]]:
    """Return the endpoint of an action."""

    async def change_tasks(site: Acting, selection: Annotated[Selection, Body()]) -> shapes.Changed:
        return shapes.Changed(changed=await perform(site, action, selection.wanted(site.client.now())))

    return change_tasks


for action, description in {
    Action.REQUEUE: "Queue finished tasks again, and with them those that were cancelled because of them.",
    Action.CANCEL: "Cancel unfinished tasks, and those behind them. Running ones are asked to stop.",
    Action.DELETE: "Delete the records of finished tasks, with their files.",
    Action.START: "Queue scheduled tasks now.",
}.items():
    router.add_api_route(
        f"/tasks/{action}", _changing(action), methods=["POST"], name=f"{action}_tasks", description=description
    )


@router.get(
    "/tasks",
    response_model=shapes.Records,
    responses={
        404: {"model": shapes.Refused, "description": "The task of `before` is not stored any more: begin again"}
    },
)
async def list_tasks(site: Visited, asked: Annotated[Listing, Query()]) -> Json:
    """List tasks, the newest first. Secrets are hidden; tracebacks and logs are in the record of one task."""
    page = await steering.continued(
        await site.engine(), asked.filter(site.client.now()), limit=asked.limit, before=asked.below
    )
    return Json({"tasks": _shown(page.tasks), "next": page.next})


@router.get("/count")
async def count_tasks(site: Visited, asked: Annotated[Asked, Query()]) -> shapes.Count:
    """Count the tasks that match, up to 100,000."""
    return shapes.Count(count=await steering.counted(await site.engine(), asked.filter(site.client.now())))


@router.get(
    "/tasks/{id}",
    response_model=TaskRecord,
    responses={404: {"model": shapes.Refused, "description": "No such task is stored"}},
)
async def show_task(site: Visited, id: str) -> Json:
    """Return the record of one task, with the tracebacks of its failures and the lines that its attempts logged."""
    found = await (await site.engine()).get([_canonical(id)])
    if not found:
        raise UnknownTask(id)
    return Json(_shown(found)[0])


def _shown(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    return [TaskRecord.of(task).as_json() for task in tasks]


def _canonical(id: str) -> str:
    """Return an id as it is stored. Raises UnknownTask if it cannot be one."""
    try:
        return str(UUID(id))
    except ValueError:
        raise UnknownTask(id) from None
