"""Task handles as answers of path operations, and what a client gets who asks for what there is not."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from afterwards import Afterwards, BackgroundTasks, TaskHandle, UnstorableArgument, task
from afterwards.core.errors import UnusableAnnotation
from face.diary import note
from face.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

NOBODY = "01890000-0000-7000-8000-000000000000"


class Accepted(BaseModel):
    message: str
    handle: TaskHandle[str]
    others: dict[str, TaskHandle[Any]] = {}


def make_app(url: str, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    tasks = Afterwards(app, url)

    @app.get("/bare")
    async def bare(background_tasks: BackgroundTasks):  # type: ignore[no-untyped-def]
        return background_tasks.add_task(note, "bare")

    @app.get("/nested")
    async def nested(background_tasks: BackgroundTasks):  # type: ignore[no-untyped-def]
        return {
            "list": [background_tasks.add_task(note, "nested")],
            "more": {"x": background_tasks.add_task(note, "y")},
        }

    @app.get("/typed")
    async def typed(background_tasks: BackgroundTasks) -> TaskHandle[str]:
        return background_tasks.add_task(note, "typed")

    @app.get("/optional")
    async def optional(background_tasks: BackgroundTasks, none: bool = False) -> TaskHandle[str] | None:
        return None if none else background_tasks.add_task(note, "optional")

    @app.get("/list")
    async def many() -> list[TaskHandle[str]]:
        return [await note.enqueue("a"), await note.enqueue("b")]

    @app.get("/model")
    async def model(background_tasks: BackgroundTasks) -> Accepted:
        handle = background_tasks.add_task(note, "model")
        return Accepted(message="hello", handle=handle, others={"same": handle})

    _add_more(app, tasks)
    return app


def _add_more(app: FastAPI, tasks: Afterwards) -> None:
    @app.get("/response-model", response_model=TaskHandle)
    async def response_model() -> Any:
        return await note.enqueue("model")

    @app.get("/response-model-list", response_model=list[Accepted])
    async def response_model_list() -> Any:
        return [{"message": "x", "handle": await note.enqueue("model")}]

    @app.post("/request")
    async def request(handle: TaskHandle[str]) -> None: ...

    @app.post("/tasks/{id}/{action}")
    async def act(id: str, action: str) -> Any:
        await getattr(await tasks.get(id), action)()


@pytest.fixture
async def http(url: str, said: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(make_app(url)) as http:
        yield http


def is_a_handle(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.keys() == {"id"} and len(answer["id"]) == len(NOBODY)


async def test_a_handle_is_answered_with_its_id(http: httpx.AsyncClient) -> None:
    for path in ("/bare", "/typed", "/optional", "/response-model"):
        answer = await http.get(path)
        assert answer.status_code == 200, path
        assert is_a_handle(answer.json()), path
    assert (await http.get("/optional?none=true")).json() is None


async def test_handles_within_other_values_are_answered_with_their_ids(http: httpx.AsyncClient) -> None:
    nested = (await http.get("/nested")).json()
    assert is_a_handle(nested["list"][0])
    assert is_a_handle(nested["more"]["x"])
    assert all(map(is_a_handle, (await http.get("/list")).json()))
    model = (await http.get("/model")).json()
    assert is_a_handle(model["handle"])
    assert model["others"] == {"same": model["handle"]}
    assert is_a_handle((await http.get("/response-model-list")).json()[0]["handle"])


@pytest.mark.parametrize("separate", [True, False])
async def test_a_handle_is_typed_in_openapi(url: str, separate: bool) -> None:
    async with serving(make_app(url, separate_input_output_schemas=separate)) as http:
        described = (await http.get("/openapi.json")).json()

    def of(path: str) -> dict[str, Any]:
        schema: dict[str, Any] = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"][
            "schema"
        ]
        return schema

    for path in ("/typed", "/response-model"):
        assert of(path)["properties"] == {"id": {"title": "Id", "type": "string", "format": "uuid"}}
        assert of(path)["required"] == ["id"]
    assert of("/list")["items"]["properties"].keys() == {"id"}
    assert {one.get("type") for one in of("/optional")["anyOf"]} == {"object", "null"}
    accepted = described["components"]["schemas"]["Accepted"]["properties"]
    assert accepted["handle"]["properties"].keys() == {"id"}


async def test_a_handle_in_a_request_is_an_error_that_says_what_to_write(http: httpx.AsyncClient) -> None:
    answer = await http.post("/request", json={"id": NOBODY})
    assert answer.status_code == 422
    assert "take the id of the task as text, and ask with `await tasks.get(id)`" in answer.text


@pytest.mark.parametrize("id", [NOBODY, "nonsense", "%00"])
@pytest.mark.parametrize("action", ["status", "result", "cancel", "requeue", "start_now", "delete"])
async def test_an_unknown_id_in_a_request_is_answered_with_404(http: httpx.AsyncClient, id: str, action: str) -> None:
    answer = await http.post(f"/tasks/{id}/{action}")
    assert answer.status_code == 404
    assert "no task has the id" in answer.json()["detail"]


async def test_what_the_state_does_not_allow_is_answered_with_409(http: httpx.AsyncClient) -> None:
    handle = await note.options(delay=3600).enqueue("later")
    answer = await http.post(f"/tasks/{handle.id}/requeue")
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("is scheduled: only a finished task can be requeued")
    assert (await http.post(f"/tasks/{handle.id}/cancel")).status_code == 200
    assert (await http.post(f"/tasks/{handle.id}/delete")).status_code == 200
    assert (await http.post(f"/tasks/{handle.id}/delete")).status_code == 404


@task
async def takes_anything(value: Any) -> None: ...


async def test_a_handle_is_no_argument_of_a_task(http: httpx.AsyncClient) -> None:
    with pytest.raises(UnusableAnnotation, match=r"pass the handle's `\.id`"):

        @task
        async def takes_a_handle(handle: TaskHandle[str]) -> None: ...

    with pytest.raises(UnstorableArgument, match=r"found TaskHandle: pass the handle's `\.id`"):
        await takes_anything.enqueue([await note.enqueue("a")])
