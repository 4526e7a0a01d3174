"""Stock FastAPI code in an installed application: wherever a route comes from, its BackgroundTasks store tasks."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import fastapi.routing
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, Response, WebSocket
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import afterwards
from afterwards import Afterwards
from afterwards.web.injection import Injection
from afterwards.web.routes import insertable
from face.diary import note
from face.serving import serving, until
from face.test_websockets import talking

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


async def handler(tasks: BackgroundTasks) -> str:
    return "stored" if tasks.add_task(note, "hello") else "lost"  # type: ignore[func-returns-value]


async def adds(tasks: BackgroundTasks) -> str:
    return await handler(tasks)


def nothing() -> str:
    return "nothing"


async def get(app: FastAPI, said: list[str], path: str = "/") -> None:
    async with serving(app) as http:
        assert (await http.get(path)).json() == "stored"
        await until(lambda: said == ["hello"])


async def test_a_handler(app: FastAPI, said: list[str]) -> None:
    app.get("/")(handler)
    await get(app, said)


async def test_the_deepest_dependency(app: FastAPI, said: list[str]) -> None:
    async def outer(inner: Annotated[str, Depends(adds)]) -> str:
        return inner

    @app.get("/")
    async def route(outer: Annotated[str, Depends(outer)]) -> str:
        return outer

    await get(app, said)


async def test_a_route_that_was_added_before_the_installation(url: str, said: list[str]) -> None:
    app = FastAPI()
    app.get("/")(handler)
    Afterwards(app, url)
    await get(app, said)


async def test_a_route_that_is_added_while_the_application_serves(app: FastAPI, said: list[str]) -> None:
    async with serving(app) as http:
        assert (await http.get("/")).status_code == 404
        app.get("/")(handler)
        assert (await http.get("/")).json() == "stored"
        await until(lambda: said == ["hello"])


async def test_a_route_that_takes_the_place_of_another_one(app: FastAPI, said: list[str]) -> None:
    app.get("/")(nothing)
    async with serving(app) as http:
        assert (await http.get("/")).json() == "nothing"
        app.router.routes.pop()
        app.get("/")(handler)
        assert (await http.get("/")).json() == "stored"
        await until(lambda: said == ["hello"])


async def test_a_router_that_is_included_while_the_application_serves(app: FastAPI, said: list[str]) -> None:
    router = APIRouter()
    router.get("/")(handler)
    async with serving(app) as http:
        assert (await http.get("/in")).status_code == 404
        app.include_router(router, prefix="/in")
        assert (await http.get("/in/")).json() == "stored"
        await until(lambda: said == ["hello"])


async def test_a_route_that_is_added_to_an_included_router(app: FastAPI, said: list[str]) -> None:
    """Newer versions of FastAPI find it; older ones copy the routes when the router is included."""
    outer, inner = APIRouter(), APIRouter()
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    async with serving(app) as http:
        assert (await http.get("/outer/inner/")).status_code == 404
        inner.get("/")(handler)
        response = await http.get("/outer/inner/")
        if response.status_code == 404:
            pytest.skip("this FastAPI copies routes")
        assert response.json() == "stored"
        await until(lambda: said == ["hello"])


async def test_a_route_that_is_added_by_the_lifespan(url: str, said: list[str]) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.get("/")(handler)
        yield

    app = FastAPI(lifespan=lifespan)
    Afterwards(app, url)
    await get(app, said)


async def test_a_router_that_is_included_twice(app: FastAPI, said: list[str]) -> None:
    router = APIRouter()
    router.get("/")(handler)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    async with serving(app) as http:
        assert (await http.get("/one/")).json() == "stored"
        assert (await http.get("/two/")).json() == "stored"
        await until(lambda: said == ["hello", "hello"])


async def test_a_route_with_a_class_of_its_own(app: FastAPI, said: list[str]) -> None:
    class Own(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def handle_it(request: Request) -> Response:
                response = await handle(request)
                response.headers["by"] = "own"
                return response

            return handle_it

    router = APIRouter(route_class=Own)
    router.get("/")(handler)
    app.include_router(router, prefix="/in")
    await get(app, said, "/in/")


class Bracket:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


def mounted(wrap: Callable[[FastAPI], Any]) -> Callable[[FastAPI, FastAPI], None]:
    return lambda app, sub: app.mount("/sub", wrap(sub))


def mounted_in_an_included_router(app: FastAPI, sub: FastAPI) -> None:
    if not hasattr(fastapi.routing, "iter_route_contexts"):
        pytest.skip("this FastAPI leaves out what is mounted in an included router")
    router = APIRouter()
    router.mount("/sub", sub)
    app.include_router(router)


@pytest.mark.parametrize(
    "mount",
    [
        mounted(lambda sub: sub),
        mounted(Bracket),
        mounted(lambda sub: Router([Mount("", sub)])),
        mounted(lambda sub: Router([Host("127.0.0.1", sub)])),
        mounted_in_an_included_router,
    ],
    ids=["mounted", "in middleware", "in a router", "at a host", "in an included router"],
)
async def test_a_mounted_application(app: FastAPI, said: list[str], mount: Any) -> None:
    sub = FastAPI()
    sub.get("/")(handler)
    mount(app, sub)
    await get(app, said, "/sub/")


async def test_a_mounted_application_that_serves_alone_as_well(app: FastAPI, said: list[str]) -> None:
    """Without an installation of its own, nobody stores what is added there."""
    sub = FastAPI()
    sub.get("/")(handler)
    app.mount("/sub", sub)
    await get(app, said, "/sub/")
    async with serving(sub) as http:
        assert (await http.get("/")).json() == "lost"


async def test_a_mounted_application_with_an_installation_of_its_own(app: FastAPI, url: str, said: list[str]) -> None:
    sub = FastAPI()
    tasks = Afterwards(sub, url)
    sub.get("/")(handler)
    app.mount("/sub", sub)
    app.get("/")(handler)
    async with serving(app) as http:
        assert (await http.get("/sub/")).json() == (await http.get("/")).json() == "stored"
        await until(lambda: said == ["hello", "hello"])
    await tasks.client.close()


async def test_an_override_that_asks_where_the_original_did_not(app: FastAPI, said: list[str]) -> None:
    async def deepest(inner: Annotated[str, Depends(nothing)]) -> str:
        return inner

    @app.get("/")
    async def route(one: Annotated[str, Depends(deepest)]) -> str:
        return one

    async with serving(app) as http:
        assert (await http.get("/")).json() == "nothing"
        app.dependency_overrides[nothing] = adds
        assert (await http.get("/")).json() == "stored"
        app.dependency_overrides = {nothing: lambda: "replaced"}
        assert (await http.get("/")).json() == "replaced"
        app.dependency_overrides.clear()
        assert (await http.get("/")).json() == "nothing"
        await until(lambda: said == ["hello"])


async def test_an_override_of_a_mounted_application(app: FastAPI, said: list[str]) -> None:
    sub = FastAPI()

    @sub.get("/")
    async def route(one: Annotated[str, Depends(nothing)]) -> str:
        return one

    sub.dependency_overrides[nothing] = adds
    app.mount("/sub", sub)
    await get(app, said, "/sub/")


def test_an_override_that_fastapi_cannot_read_breaks_the_requests_that_need_it_alone(app: FastAPI) -> None:
    def unreadable(value: 1 = 2) -> None: ...  # type: ignore[valid-type]

    @app.get("/needs", dependencies=[Depends(nothing)])
    async def needs() -> None: ...

    app.get("/")(handler)
    app.dependency_overrides[nothing] = unreadable
    with TestClient(app, raise_server_exceptions=False) as http:
        assert http.get("/").json() == "stored"
        assert http.get("/needs").status_code == 500


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI serves no frontends")
@pytest.mark.parametrize("where", ["application", "router", "included in included"])
async def test_a_dependency_that_runs_for_a_frontend(url: str, tmp_path: Path, said: list[str], where: str) -> None:
    found: list[tuple[str, int]] = []

    async def adds_one(tasks: BackgroundTasks) -> None:
        found.append((await handler(tasks), len(said)))

    (tmp_path / "page.txt").write_text("a page")
    app = FastAPI(dependencies=[Depends(adds_one)] if where == "application" else [])
    Afterwards(app, url)
    owner: Any = app
    if where != "application":
        owner, outer = APIRouter(dependencies=[Depends(adds_one)]), APIRouter()
    owner.frontend("/", directory=tmp_path)
    if where == "router":
        app.include_router(owner)
    elif where != "application":
        outer.include_router(owner)
        app.include_router(outer)
    async with serving(app) as http:
        assert (await http.get("/page.txt")).text == "a page"
        await until(lambda: said == ["hello"])
    assert found == [("stored", 0)]


async def test_a_websocket_of_an_included_router(app: FastAPI, said: list[str]) -> None:
    router = APIRouter()

    @router.websocket("/")
    async def talks(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        await handler(tasks)
        await websocket.close()

    app.include_router(router)
    async with serving(app) as http, talking(http):
        await until(lambda: said == ["hello"])


async def test_the_object_is_of_both_classes(app: FastAPI) -> None:
    classes: list[type] = []

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        classes.append(type(tasks))

    async with serving(app) as http:
        await http.get("/")
    assert classes == [afterwards.BackgroundTasks]
    assert issubclass(afterwards.BackgroundTasks, BackgroundTasks)


@pytest.mark.skipif(not insertable(), reason="this FastAPI does not show its routes")
def test_routes_that_do_not_ask_are_left_as_they_are(app: FastAPI) -> None:
    def ours(route: Any) -> list[Any]:
        return [needed.call for needed in route.dependant.dependencies if isinstance(needed.call.__self__, Injection)]

    app.get("/")(handler)
    app.get("/other")(nothing)
    app.router.routes.append(Route("/starlette", lambda request: Response()))
    with TestClient(app):
        asking, other = (route for route in app.routes if isinstance(route, APIRoute))
    assert len(ours(asking)) == 1
    assert other.dependant.dependencies == []
