"""Where FastAPI injects ``BackgroundTasks``: everywhere that it injects its own, as one object per request."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse

from afterwards import Afterwards, BackgroundTasks
from face.diary import note, note_in_thread, plain
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


async def get(app: FastAPI, path: str, said: list[str], expected: list[str]) -> None:
    """Ask for the path, and wait for what is expected to be said."""
    async with serving(app) as http:
        response = await http.get(path)
        assert response.status_code == 200, response.text
        await until(lambda: len(said) >= len(expected))
    assert said == expected


async def test_an_async_handler_gets_ours(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        assert isinstance(background_tasks, BackgroundTasks)
        background_tasks.add_task(note, "hello")

    await get(app, "/", said, ["hello"])


async def test_a_sync_handler_gets_ours(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note_in_thread, "hello")

    await get(app, "/", said, ["hello"])


async def test_dependencies_and_their_dependencies_share_one_object(app: FastAPI, said: list[str]) -> None:
    def deepest(tasks: BackgroundTasks) -> BackgroundTasks:
        tasks.add_task(note, "deepest")
        return tasks

    async def deeper(tasks: BackgroundTasks, other: Annotated[Any, Depends(deepest)]) -> BackgroundTasks:
        assert tasks is other
        tasks.add_task(note, "deeper")
        return tasks

    @app.get("/")
    async def handler(tasks: BackgroundTasks, other: Annotated[Any, Depends(deeper)]) -> None:
        assert tasks is other
        tasks.add_task(note, "handler")

    await get(app, "/", said, ["deepest", "deeper", "handler"])


async def test_an_uncached_dependency_gets_the_same_object(app: FastAPI, said: list[str]) -> None:
    async def again(tasks: BackgroundTasks) -> BackgroundTasks:
        tasks.add_task(note, "once")
        return tasks

    @app.get("/")
    async def handler(
        one: Annotated[Any, Depends(again, use_cache=False)], two: Annotated[Any, Depends(again, use_cache=False)]
    ) -> None:
        assert one is two

    await get(app, "/", said, ["once", "once"])


async def test_dependencies_of_routes_routers_and_the_application_may_add_tasks(url: str, said: list[str]) -> None:
    async def of_the_app(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "app")

    async def of_the_router(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "router")

    async def of_the_route(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "route")

    app = FastAPI(dependencies=[Depends(of_the_app)])
    Afterwards(app, url)
    router = APIRouter(dependencies=[Depends(of_the_router)])

    @router.get("/", dependencies=[Depends(of_the_route)])
    async def handler() -> None: ...

    app.include_router(router)
    await get(app, "/", said, ["app", "router", "route"])


@pytest.mark.parametrize("installed_first", [True, False])
async def test_included_routers_get_ours(url: str, said: list[str], installed_first: bool) -> None:
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    if installed_first:
        Afterwards(app, url)

    @inner.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "inner")

    outer.include_router(inner)
    app.include_router(outer)
    if not installed_first:
        Afterwards(app, url)
    await get(app, "/outer/inner/", said, ["inner"])


async def test_a_mounted_application_uses_the_installation_outside(app: FastAPI, said: list[str]) -> None:
    sub = FastAPI()

    @sub.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "mounted")

    app.mount("/sub", sub)
    await get(app, "/sub/", said, ["mounted"])


async def test_a_request_scoped_yield_dependency_may_take_tasks(app: FastAPI, said: list[str]) -> None:
    async def resource(tasks: BackgroundTasks) -> AsyncIterator[str]:
        tasks.add_task(note, "resource")
        yield "resource"

    def sync_resource(tasks: BackgroundTasks) -> Iterator[str]:
        tasks.add_task(note, "sync resource")
        yield "resource"

    @app.get("/")
    async def handler(one: Annotated[str, Depends(resource)], two: Annotated[str, Depends(sync_resource)]) -> None: ...

    await get(app, "/", said, ["resource", "sync resource"])


async def test_a_function_scoped_yield_dependency_may_take_tasks(app: FastAPI, said: list[str]) -> None:
    async def resource(tasks: BackgroundTasks) -> AsyncIterator[str]:
        tasks.add_task(note, "before")
        yield "resource"
        tasks.add_task(note, "after")

    @app.get("/")
    async def handler(tasks: BackgroundTasks, resource: Annotated[str, Depends(resource, scope="function")]) -> None:
        tasks.add_task(note, "handler")

    await get(app, "/", said, ["before", "handler", "after"])


async def test_a_class_may_be_the_dependency(app: FastAPI, said: list[str]) -> None:
    class Mailer:
        def __init__(self, tasks: BackgroundTasks) -> None:
            self.tasks = tasks

    @app.get("/")
    async def handler(mailer: Annotated[Mailer, Depends()]) -> None:
        mailer.tasks.add_task(note, "mail")

    await get(app, "/", said, ["mail"])


async def test_ours_and_fastapis_own_are_one_object_in_one_request(app: FastAPI, said: list[str]) -> None:
    def from_elsewhere(native: fastapi.BackgroundTasks) -> fastapi.BackgroundTasks:
        native.add_task(note, "native")
        return native

    @app.get("/")
    async def handler(ours: BackgroundTasks, native: Annotated[Any, Depends(from_elsewhere)]) -> None:
        assert ours is native
        ours.add_task(note, "ours")

    await get(app, "/", said, ["native", "ours"])


@pytest.mark.parametrize("annotation", [Annotated[BackgroundTasks, "why"], "BackgroundTasks"])
async def test_other_spellings_of_the_annotation_work(app: FastAPI, said: list[str], annotation: Any) -> None:
    async def handler(tasks: Any) -> None:
        tasks.add_task(note, "hello")

    handler.__annotations__["tasks"] = annotation
    app.get("/")(handler)
    await get(app, "/", said, ["hello"])


async def test_a_default_of_none_is_overridden_by_the_injected_object(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks = None) -> None:  # type: ignore[assignment]  # as many write it
        tasks.add_task(note, "hello")

    await get(app, "/", said, ["hello"])


def test_openapi_is_the_same_as_with_fastapis_own() -> None:
    def described(tasks_class: Any) -> dict[str, Any]:
        app = FastAPI()
        if tasks_class is BackgroundTasks:
            Afterwards(app, "memory://openapi")

        async def dependency(tasks: tasks_class, q: str = "") -> None: ...

        @app.post("/{id}", dependencies=[Depends(dependency)])
        async def handler(id: int, body: dict[str, int], tasks: tasks_class) -> dict[str, str]:
            return {}

        return app.openapi()

    assert described(BackgroundTasks) == described(fastapi.BackgroundTasks)


async def test_nothing_is_stored_when_the_handler_raises(app: FastAPI, said: list[str]) -> None:
    @app.get("/refuses")
    async def refuses(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")
        tasks.add_task(plain, "never")
        raise HTTPException(409)

    @app.get("/breaks")
    async def breaks(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")
        tasks.add_task(plain, "never")
        raise RuntimeError("broken")

    @app.get("/lies", response_model=int)
    async def lies(tasks: BackgroundTasks) -> Any:
        tasks.add_task(note, "returned, so it is stored")
        return "no int"

    @app.get("/works")
    async def works(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "works")

    async with serving(app) as http:
        assert [(await http.get(path)).status_code for path in ("/refuses", "/breaks", "/lies", "/works")] == [
            409,
            500,
            500,
            200,
        ]
        await until(lambda: "works" in said)
    assert "never" not in said


async def test_a_returned_error_response_stores_its_tasks(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> JSONResponse:
        tasks.add_task(note, "hello")
        return JSONResponse({}, status_code=400)

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 400
        await until(lambda: said == ["hello"])
