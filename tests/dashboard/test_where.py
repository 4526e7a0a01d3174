"""The dashboard at any place: prefixes, proxies, mounted applications, several in one application."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from afterwards import Access, Afterwards
from afterwards.dashboard.router import base_of
from dashboard.fixtures import ACT, READ, add, admin
from face.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def described_at(http: httpx.AsyncClient, prefix: str) -> list[str]:
    """Where the API says it is, when it is asked below a prefix."""
    answer = await http.get(f"{prefix}/api/openapi.json", headers=READ)
    assert answer.status_code == 200, answer.text
    assert (await http.get(f"{prefix}/api/tasks", headers=READ)).status_code == 200
    return [server["url"] for server in answer.json().get("servers", [])]


@pytest.mark.parametrize("prefix", ["/ops", "/a/b/c", "/api"])
async def test_a_router_may_be_included_at_any_prefix(store: str, prefix: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, store)
    app.include_router(tasks.dashboard_router(auth=Depends(admin)), prefix=prefix)
    async with serving(app) as http:
        assert await described_at(http, prefix) == [prefix]
        assert (await http.get(prefix)).status_code == 401
        assert (await http.get(f"{prefix}andmore")).status_code == 404


async def test_a_router_may_be_in_another_router(store: str) -> None:
    app, admins = FastAPI(), APIRouter(prefix="/admin")
    tasks = Afterwards(app, store)
    admins.include_router(tasks.dashboard_router(auth=Depends(admin)), prefix="/tasks")
    app.include_router(admins, prefix="/v1")
    async with serving(app) as http:
        assert await described_at(http, "/v1/admin/tasks") == ["/v1/admin/tasks"]


async def test_it_may_be_the_whole_of_a_mounted_application(store: str) -> None:
    app, mounted = FastAPI(), FastAPI()
    mounted.include_router(Afterwards(app, store).dashboard_router(auth=Depends(admin)))
    app.mount("/ops", mounted)
    async with serving(app) as http:
        assert await described_at(http, "/ops") == ["/ops"]
        assert (await http.get("/ops/")).status_code == 401


async def test_a_proxy_may_take_a_prefix_away(store: str) -> None:
    app = FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(admin))

    async def told_of_the_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/v1"}, receive, send)

    async with serving(told_of_the_prefix) as http:
        assert await described_at(http, "/afterwards") == ["/v1/afterwards"]


async def test_a_server_may_know_the_prefix_of_its_proxy(store: str) -> None:
    app = FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(admin))
    async with serving(app, root_path="/v1") as http:  # uvicorn adds it to the path
        assert await described_at(http, "/afterwards") == ["/v1/afterwards"]


async def test_a_path_parameter_may_be_in_the_prefix(store: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, store)
    app.include_router(tasks.dashboard_router(auth=Depends(admin)), prefix="/of/{tenant}/tasks")
    async with serving(app) as http:
        assert await described_at(http, "/of/a%20b/tasks") == ["/of/a b/tasks"]
        assert await described_at(http, "/of/c/tasks") == ["/of/c/tasks"]


async def test_two_dashboards_in_one_application_have_their_own_dependencies(store: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, store, dashboard="/afterwards", auth=Depends(admin))
    app.include_router(tasks.dashboard_router(auth=lambda: Access.READ), prefix="/public")
    async with serving(app) as http:
        assert (await http.get("/afterwards/api/tasks")).status_code == 401
        assert (await http.get("/public/api/tasks")).status_code == 200
        assert (await http.post("/public/api/queues/default/pause")).status_code == 403
        assert (await http.post("/afterwards/api/queues/default/pause", headers=ACT)).status_code == 200


async def test_two_installations_in_one_process_show_their_own_tasks(store: str) -> None:
    app, mounted = FastAPI(), FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(admin), worker=False)
    other = Afterwards(mounted, "memory://other", dashboard="/afterwards", auth=Depends(admin), worker=False)
    app.mount("/mounted", mounted)
    await other.enqueue_many([add.call(1, other=2)])
    try:
        async with serving(app) as http:
            assert (await http.get("/afterwards/api/count", headers=READ)).json() == {"count": 0}
            assert (await http.get("/mounted/afterwards/api/count", headers=READ)).json() == {"count": 1}
    finally:
        await other.client.close()


async def test_the_application_described_in_openapi_has_no_dashboard(store: str) -> None:
    app = FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(admin))
    assert app.openapi()["paths"] == {}


async def test_an_application_factory_gives_it_the_application_later(store: str) -> None:
    tasks = Afterwards(url=store, dashboard="/afterwards", auth=Depends(admin))
    app = FastAPI()
    tasks.install(app)
    async with serving(app) as http:
        assert await described_at(http, "/afterwards") == ["/afterwards"]


async def test_the_dependency_is_one_of_the_application(store: str) -> None:
    """It has the application's state and overrides, may set cookies, and may add background tasks."""
    audit: list[str] = []

    def database() -> str:
        raise AssertionError("it is overridden")

    def renewed(
        request: Request,
        response: Response,
        background_tasks: BackgroundTasks,
        rows: Annotated[str, Depends(database)],
    ) -> str:
        response.set_cookie("session", "renewed")
        background_tasks.add_task(audit.append, rows)
        return str(request.app.state.name)

    app = FastAPI()
    app.state.name = "anna"
    app.dependency_overrides[database] = lambda: "from the override"
    Afterwards(app, store, dashboard="/afterwards", auth=renewed)
    async with serving(app) as http:
        answer = await http.get("/afterwards/api/tasks")
    assert (answer.status_code, answer.headers["set-cookie"].partition(";")[0]) == (200, "session=renewed")
    assert audit == ["from the override"]


async def test_the_applications_own_dependencies_hold_for_it_too(store: str) -> None:
    app = FastAPI(dependencies=[Depends(admin)])
    Afterwards(app, store, dashboard="/afterwards", auth=lambda: Access.ACT)
    async with serving(app) as http:
        assert (await http.get("/afterwards/api/tasks")).status_code == 401


async def test_a_dependency_with_yield_is_open_while_it_answers(store: str) -> None:
    events: list[str] = []

    async def session() -> Any:
        events.append("open")
        yield "anna"
        events.append("closed")

    app = FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(session))
    async with serving(app) as http:
        assert (await http.get("/afterwards/api/tasks")).status_code == 200
    assert events == ["open", "closed"]


@pytest.mark.parametrize(
    ("path", "root", "below", "base"),
    [
        ("/afterwards", "", "", "/afterwards"),
        ("/afterwards/", "", "/", "/afterwards"),
        ("/tasks", "", "/tasks", ""),
        ("/v1/tasks", "/v1", "/tasks", "/v1"),
        ("/v1/tasks", "/v1/", "/tasks", "/v1"),
        ("/v1/ops/tasks", "/v1", "/tasks", "/v1/ops"),
        ("/ops/tasks", "/v1", "/tasks", "/v1/ops"),
        ("/v11/tasks", "/v1", "/tasks", "/v1/v11"),
    ],
)
def test_the_base_of_all_links(path: str, root: str, below: str, base: str) -> None:
    assert base_of({"path": path, "root_path": root}, below) == base
