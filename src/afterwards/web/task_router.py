"""``tasks.router(owner=...)``: the tasks of an application's own users, over HTTP."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Annotated, Any, Union
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Response
from fastapi.responses import JSONResponse

from afterwards.client.client import Client
from afterwards.core.errors import InvalidOption, Unreadable, UnstorableResult
from afterwards.core.process_state import ProcessState
from afterwards.core.redaction import RETURN, json_value, redactor_of
from afterwards.core.serialization.explain import UNUSABLE, schema_of
from afterwards.core.serialization.signature import resolved
from afterwards.core.task import State, Task
from afterwards.core.text import shown
from afterwards.tasks.function import TaskFunction
from afterwards.tasks.registry import registry
from afterwards.web import live
from afterwards.web.event_stream import EventStream, event, event_id
from afterwards.web.owners import owned
from afterwards.web.task_status import NoResult, TaskStatus

NOT_CACHED = {"Cache-Control": "no-store"}

ASK_AGAIN = {"Retry-After": "1", **NOT_CACHED}
"""Seconds after which a client should ask again for a task that has not finished."""

FROM_ANNOTATION: Any = object()
"""The default of ``result``: the return annotations of the functions."""

REASON = "cancelled by its owner"


def make_router(
    client: Client,
    functions: Sequence[TaskFunction[Any, Any, Any]],
    *,
    owner: Callable[..., Any],
    result: Any = FROM_ANNOTATION,
    errors: bool = False,
) -> APIRouter:
    """Return the router that ``Afterwards.router`` describes. Raises InvalidOption."""
    for function in functions:
        if not isinstance(function, TaskFunction):
            raise InvalidOption(f"router({function!r}): it is not a task function: give one that @task made")
    if not isinstance(errors, bool):
        raise InvalidOption(f"router(errors={shown(errors)}): give True or False")
    if result is not FROM_ANNOTATION:
        _check_type(result)
    names = frozenset(name for one in functions for name in (one.name, *one.aliases))
    answers = Answers(client, names, errors=errors)
    model = _result_model(functions) if result is FROM_ANNOTATION else result
    router = APIRouter()
    _add_routes(router, answers, owned(owner, answers.find), model)
    _routers.of.setdefault(client, []).append(Served(names, _route_name(names, "status")))
    return router


@dataclass(frozen=True, slots=True)
class Served:
    """The tasks that a router answers for, and the name of the route of one."""

    names: frozenset[str]  # of task functions; empty means all
    route: str


def routes_for(client: Client, name: str | None) -> list[str]:
    """Return the names of the routes for a task function's tasks, routers made for this function first."""
    made = _routers.of.get(client, ())
    own = [one.route for one in made if name in one.names]
    return [*own, *(one.route for one in made if not one.names)]


class Routers(ProcessState):
    """The routers that each installation has made."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[Client, list[Served]] = WeakKeyDictionary()


_routers = Routers()


class Answers:
    """The answers of a router, for tasks that the client may see."""

    def __init__(self, client: Client, names: frozenset[str], *, errors: bool) -> None:
        self._client = client
        self.names = names
        self._errors = errors

    async def find(self, id: Annotated[str, Path(description="The id of the task.")]) -> Task | None:
        """Return the task of the path; None if it is unknown, or not one of this router's functions."""
        found = await (await self._client.open()).get([id])
        return next((task for task in found if not self.names or task.name in self.names), None)

    def status(self, task: Task) -> TaskStatus:
        return TaskStatus.of(task, errors=self._errors)

    def result(self, task: Task) -> Any:
        """Return the result of the function; 202 if the task goes on, 409 if it has none."""
        match task.state:
            case State.SUCCEEDED if RETURN in task.secrets:
                raise HTTPException(403, "The result of this task is secret")
            case State.SUCCEEDED if any(secret.startswith(f"{RETURN}.") for secret in task.secrets):
                return JSONResponse(redactor_of(task).result(json_value(task.result)), headers=NOT_CACHED)
            case State.SUCCEEDED:
                return self._loaded(task)
            case State.FAILED | State.CANCELLED:
                return self._no_result(task, f"The task has no result: {self.status(task).error}")
        return _answer(self.status(task), 202, ASK_AGAIN)

    async def cancel(self, task: Task) -> TaskStatus:
        cancelled = await self._client.cancel(task.id, REASON)
        live.hurry(self._client)
        return self.status(cancelled)

    def events(self, task: Task, last_event_id: str | None) -> Response:
        """Stream the task. A browser that has seen the end, and connects again, is told with 204 to stop."""
        if task.state.finished and last_event_id == event_id(self.status(task).model_dump_json()):
            return Response(status_code=204)
        return EventStream(partial(live.watching_task, self._client, task), self._event)

    def _event(self, task: Task) -> tuple[bytes, bool]:
        finished = task.state.finished
        return event("finished" if finished else "status", self.status(task).model_dump_json()), not finished

    def _loaded(self, task: Task) -> Any:
        if task.name not in registry.names:
            return json_value(task.result)
        try:
            return registry.get(task.name).results.load(task.result)
        except (UnstorableResult, Unreadable):
            return self._no_result(task, "The task has no result that can be read")

    def _no_result(self, task: Task, detail: str) -> Response:
        return _answer(NoResult(detail=detail, task=self.status(task)), 409, NOT_CACHED)


def _answer(content: TaskStatus | NoResult, status_code: int, headers: dict[str, str]) -> Response:
    return Response(content.model_dump_json(), status_code, headers, "application/json")


def _add_routes(router: APIRouter, answers: Answers, owned_task: Callable[..., Awaitable[Task]], result: Any) -> None:
    named = partial(_route_name, answers.names)

    @router.get("/{id}", name=named("status"), responses=UNKNOWN)
    async def status(response: Response, task: Task = Depends(owned_task)) -> TaskStatus:
        """Where the task stands."""
        response.headers.update(NOT_CACHED)
        return answers.status(task)

    @router.get("/{id}/result", name=named("result"), response_model=result, responses=UNKNOWN | NOT_READY)
    async def result_of(response: Response, task: Task = Depends(owned_task)) -> Any:
        """The result of the task."""
        response.headers.update(NOT_CACHED)
        return answers.result(task)

    @router.post("/{id}/cancel", name=named("cancel"), responses=UNKNOWN)
    async def cancel(task: Task = Depends(owned_task)) -> TaskStatus:
        """Cancel the task. One that runs is asked to stop, one that has finished stays as it is."""
        return await answers.cancel(task)

    @router.get(
        "/{id}/events", status_code=200, name=named("events"), response_class=EventStream, responses=UNKNOWN | EVENTS
    )
    async def events(
        task: Task = Depends(owned_task), last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """Follow the task: events `status` after its changes, and `finished` as the last one, each with its status."""
        return answers.events(task, last_event_id)


def _route_name(names: Iterable[str], what: str) -> str:
    """Return the name of a route, for ``url_for``: ``task_status``, or with the names of the router's functions."""
    return "_".join([*(sorted(names) or ["task"]), what])


def _result_model(functions: Sequence[TaskFunction[Any, Any, Any]]) -> Any:
    """Return the type of the functions' results: any of their return annotations. Raises InvalidOption."""
    found = tuple(map(_returned, functions))
    return Union[found] if found and Any not in found else Any  # noqa: UP007  # a tuple


def _check_type(result: Any) -> None:
    try:
        schema_of(result)
    except UNUSABLE as error:
        raise InvalidOption(f"router(result={shown(result)}): give a type, as int, or a pydantic model") from error


def _returned(function: TaskFunction[Any, Any, Any]) -> Any:
    annotation = signature(function.function).return_annotation
    try:
        returned = resolved(function.function, "return", annotation)
        schema_of(returned)
    except NameError as error:
        raise InvalidOption(
            f"router({function.name}): its return annotation {annotation!r} cannot be evaluated yet ({error}): "
            "call tasks.router after the class is defined, or give result=..."
        ) from error
    except UNUSABLE:  # such results are plain JSON
        return Any
    return returned


UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such task, or it belongs to somebody else"}
}

NOT_READY: dict[int | str, dict[str, Any]] = {
    202: {
        "model": TaskStatus,
        "description": "The task has not finished: ask again after the seconds in `Retry-After`",
    },
    409: {"model": NoResult, "description": "The task failed or was cancelled"},
}

EVENTS: dict[int | str, dict[str, Any]] = {
    204: {"description": "The client has seen the end already: do not connect again"},
    503: {"description": "Too many clients are watching"},
}
