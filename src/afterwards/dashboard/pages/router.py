"""The addresses of the pages, and of the forms on them."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response

from afterwards.core.errors import UnknownTask
from afterwards.core.names import check_name
from afterwards.dashboard import actions, schedules
from afterwards.dashboard.pages.assets import FOR_EVER, SERVED
from afterwards.dashboard.pages.confirm import act_of, confirm_page, ids_of, wanted_by
from afterwards.dashboard.pages.forms import fields_of
from afterwards.dashboard.pages.overview import overview_page
from afterwards.dashboard.pages.questions import Question, id_of
from afterwards.dashboard.pages.queues import queues_page
from afterwards.dashboard.pages.rendering import THEME, THEMES, render
from afterwards.dashboard.pages.schedules import schedules_page
from afterwards.dashboard.pages.task import task_page
from afterwards.dashboard.pages.task_list import task_list_page
from afterwards.dashboard.pages.workers import workers_page
from afterwards.dashboard.site import Acting, Site, Visited
from afterwards.dashboard.throughput import Span
from afterwards.engine import Paused

router = APIRouter(include_in_schema=False)


@router.get("/")
async def overview(request: Request, site: Visited, span: str = Span.HOUR) -> Response:
    if span not in set(Span):
        raise HTTPException(422, f"“{span}” is no span of the chart. The spans are {', '.join(Span)}.")
    page = await overview_page(await site.engine(), site.client.now(), Span(span))
    return render(request.scope, "overview.html", page=page)


@router.get("/queues")
async def queues(request: Request, site: Visited) -> Response:
    return render(request.scope, "queues.html", page=await queues_page(await site.engine()))


@router.post("/queues/{name}/{act}")
async def pause_queue(site: Acting, name: str, act: str) -> Response:
    await _pause_or_resume(site, act, Paused(queues=frozenset({check_name("queue", name)})))
    return _see(site, "queues")


@router.post("/functions/{name}/{act}")
async def pause_function(site: Acting, name: str, act: str) -> Response:
    await _pause_or_resume(site, act, Paused(names=frozenset({check_name("name", name)})))
    return _see(site, "queues")


@router.get("/tasks")
async def tasks(request: Request, site: Visited, before: str | None = None) -> Response:
    below = None if before is None else id_of(before)
    if before and below is None:
        raise HTTPException(422, f"before={before}: the list goes on below the id of a task.")
    question = Question.of(request.query_params)
    page = await task_list_page(await site.engine(), site.client.now(), question, below)
    return render(request.scope, "tasks.html", page=page)


@router.get("/tasks/confirm")
async def confirm(
    request: Request,
    site: Acting,
    act: str = "",
    id: Annotated[Sequence[str], Query()] = (),
    all: str = "",
    back: str = "",
) -> Response:
    ids = [] if all else ids_of(id)
    question = Question.of(request.query_params)
    page = await confirm_page(await site.engine(), site.client.now(), act_of(act), question, ids, id_of(back))
    return render(request.scope, "confirm.html", page=page)


@router.post("/tasks/act")
async def act(request: Request, site: Acting) -> Response:
    form = await fields_of(request)
    first = {key: values[0] for key, values in form.items()}
    asked = act_of(first.get("act", ""))
    question = Question.of(first)
    ids = [] if first.get("all") else ids_of(form.get("id", ()))
    count = await actions.perform(site, asked.action, wanted_by(question, ids, site.client.now()))
    said = {"done": asked.action.value, "count": str(count)}
    if back := id_of(first.get("back", "")):
        return _see(site, "tasks", back, **said)
    return _see(site, "tasks", **question.fields(), **said)


@router.get("/tasks/{id}")
async def task(request: Request, site: Visited, id: str) -> Response:
    known = id_of(id)
    page = await task_page(await site.engine(), known) if known else None
    if page is None:
        raise UnknownTask(id)
    return render(request.scope, "task.html", page=page)


@router.get("/schedules")
async def schedule_list(request: Request, site: Visited) -> Response:
    return render(request.scope, "schedules.html", page=await schedules_page(site))


@router.post("/schedules/{name}/{act}")
async def pause_schedule(site: Acting, name: str, act: str) -> Response:
    change = {"pause": schedules.pause, "resume": schedules.resume}.get(act)
    if change is None or not await change(site, name):
        raise HTTPException(404, f"There is no schedule “{name}”.")
    return _see(site, "schedules")


@router.get("/workers")
async def workers(request: Request, site: Visited) -> Response:
    return render(request.scope, "workers.html", page=await workers_page(await site.engine()))


@router.post("/theme")
async def theme(request: Request, site: Visited) -> Response:
    form = await fields_of(request)
    chosen = form.get("theme", [""])[0]
    answer = RedirectResponse(_within(site, form.get("back", [""])[0]), 303)
    if chosen in THEMES:
        answer.set_cookie(THEME, chosen, max_age=31536000, path=site.link(), samesite="lax", httponly=True)
    return answer


@router.get("/static/{name}")
async def static(name: str) -> Response:
    if name not in SERVED:
        raise HTTPException(404, "There is no such file. After a deploy, reload the page.")
    asset = SERVED[name]
    return Response(asset.content, media_type=asset.type, headers={"Cache-Control": FOR_EVER})


async def _pause_or_resume(site: Site, act: str, paused: Paused) -> None:
    match act:
        case "pause":
            await actions.pause(site, paused)
        case "resume":
            await actions.resume(site, paused)
        case _:
            raise HTTPException(404, f"There is no act “{act}” here.")


def _see(site: Site, *parts: str, **query: str) -> RedirectResponse:
    """Send the browser to a page, so that a reload does not repeat what was done."""
    path = site.link(*parts)
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)


def _within(site: Site, path: str) -> str:
    """Return a path of the dashboard's, and its first page instead of any other address."""
    own = path == site.base or path.startswith((f"{site.base}/", f"{site.base}?"))
    return path if own and not path.startswith("//") and not set(path) & set("\\\r\n\t") else site.link()
