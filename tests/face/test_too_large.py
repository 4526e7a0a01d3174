"""A request whose own input is too large for the store is answered with 413 and the limit."""

from typing import Annotated

import pytest
from fastapi import Body, FastAPI, Response, UploadFile
from starlette.applications import Starlette
from starlette.routing import Mount

from afterwards import Afterwards, BackgroundTasks, task
from face.diary import note
from face.serving import records, serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

LONG = "a" * 300_000


@task
async def keep(file: UploadFile) -> None: ...


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


@pytest.fixture
def tasks(app: FastAPI, url: str) -> Afterwards:
    tasks = Afterwards(app, url, worker=False, max_file_size=1000)

    @app.post("/text")
    async def text(text: Annotated[str, Body()], tasks: BackgroundTasks) -> None:
        tasks.add_task(note, text)

    @app.post("/enqueue")
    async def enqueue(text: Annotated[str, Body()]) -> None:
        await note.enqueue(text)

    @app.post("/file")
    async def upload(file: UploadFile, tasks: BackgroundTasks) -> None:
        tasks.add_task(keep, file)

    @app.post("/enqueue_file")
    async def enqueue_file(file: UploadFile) -> None:
        await keep.enqueue(file)

    @app.post("/by_hand")
    async def by_hand(file: UploadFile) -> Response:
        file.size = None
        tasks = BackgroundTasks()
        tasks.add_task(keep, file)
        return Response(background=tasks)

    @app.post("/made")
    async def made(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, LONG)

    return tasks


@pytest.mark.parametrize("path", ["/text", "/enqueue"])
async def test_an_argument_that_came_with_the_request(app: FastAPI, tasks: Afterwards, path: str) -> None:
    async with serving(app) as http:
        answer = await http.post(path, json=LONG)
        assert answer.status_code == 413
        assert "the limit is 262,144" in answer.json()["detail"]
        assert (await http.post("/text", json="short")).status_code == 200
        assert len(await records(tasks)) == 1


@pytest.mark.parametrize("path", ["/file", "/enqueue_file", "/by_hand"])
async def test_an_uploaded_file(app: FastAPI, tasks: Afterwards, path: str) -> None:
    async with serving(Starlette(routes=[Mount("/sub", app)], lifespan=app.router.lifespan_context)) as http:
        answer = await http.post(f"/sub{path}", files={"file": b"a" * 1001})
        assert answer.status_code == 413
        assert "1,001 bytes, the limit is 1,000" in answer.json()["detail"]
        assert await records(tasks) == []


async def test_what_the_code_made_so_large_is_its_error(app: FastAPI, tasks: Afterwards) -> None:
    async with serving(app) as http:
        assert (await http.post("/made")).status_code == 500
