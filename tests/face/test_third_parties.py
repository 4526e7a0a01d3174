"""``BackgroundTasks`` where others look at it as at FastAPI's class, each with the real library."""

from typing import Annotated, Any, Optional
from unittest.mock import MagicMock, create_autospec, patch

import fastapi
import pytest
import strawberry
from beartype import beartype
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from fastapi_utils.cbv import cbv
from packaging.version import Version
from strawberry.fastapi import GraphQLRouter
from typeguard import typechecked

from afterwards import Afterwards, BackgroundTasks
from afterwards.engine import Query
from afterwards.testing import assert_enqueued
from face.diary import note
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

BOTH = pytest.mark.parametrize("tasks_class", [BackgroundTasks, fastapi.BackgroundTasks], ids=["ours", "fastapi's"])


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


async def get(app: FastAPI, said: list[str], path: str = "/") -> None:
    """Ask for the path, whose task says hello."""
    async with serving(app) as http:
        response = await http.get(path)
        assert response.status_code == 200, response.text
        assert "store" in response.text
        await until(lambda: said == ["hello"])


def added(tasks: Any) -> str:
    return "stored" if tasks.add_task(note, "hello") else "lost"


@BOTH
async def test_it_may_be_an_attribute_of_a_class_based_view(app: FastAPI, said: list[str], tasks_class: Any) -> None:
    router = APIRouter()

    class View:
        tasks: tasks_class

        @router.get("/")
        async def handler(self) -> str:
            return added(self.tasks)

    cbv(router)(View)
    app.include_router(router)
    await get(app, said)


@BOTH
@pytest.mark.parametrize("checked", [beartype, typechecked])
async def test_an_endpoint_may_check_its_types(app: FastAPI, said: list[str], tasks_class: Any, checked: Any) -> None:
    async def handler(tasks: tasks_class) -> str:
        return added(tasks)

    app.get("/")(checked(handler))
    await get(app, said)


@BOTH
async def test_a_helper_may_take_it_or_none(app: FastAPI, said: list[str], tasks_class: Any) -> None:
    def helper(tasks: tasks_class | None) -> str:
        return added(tasks) if tasks else "nothing to store with"

    @app.get("/")
    async def handler(tasks: tasks_class) -> str:
        return helper(tasks)

    await get(app, said)


@BOTH
@pytest.mark.parametrize("spell", [Optional.__getitem__, lambda cls: cls | None], ids=["Optional", "| None"])
def test_an_optional_one_is_refused_at_the_declaration_as_by_fastapi(
    app: FastAPI, tasks_class: Any, spell: Any
) -> None:
    async def handler(tasks: spell(tasks_class) = None) -> None: ...

    with pytest.raises(fastapi.exceptions.FastAPIError):
        app.get("/")(handler)


@pytest.mark.skipif(
    Version(fastapi.__version__) < Version("0.128.2"),
    reason="this FastAPI refuses it for its own class, too",
)
@BOTH
async def test_a_parameter_may_depend_on_a_wrapper(app: FastAPI, said: list[str], tasks_class: Any) -> None:
    class Wrapper(tasks_class):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def add_task(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            return self.inner.add_task(func, *args, **kwargs)

    def wrapper(tasks: tasks_class) -> Any:
        return Wrapper(tasks)

    @app.get("/")
    async def handler(tasks: tasks_class = Depends(wrapper)) -> str:
        return added(tasks)

    await get(app, said)


def test_a_mock_has_its_methods_and_nothing_else() -> None:
    mock = MagicMock(spec=BackgroundTasks)
    mock.add_task(note, "hello")
    mock.add_task.assert_called_once_with(note, "hello")
    mock.configure(ordered=False)
    assert isinstance(mock, BackgroundTasks)
    with pytest.raises(AttributeError):
        mock.add_tasks(note)
    automatic = create_autospec(BackgroundTasks, instance=True)
    automatic.add_task(note, "hello")
    with pytest.raises(TypeError):
        automatic.add_task()


@BOTH
def test_add_task_can_be_patched(app: FastAPI, tasks_class: Any) -> None:
    @app.get("/")
    async def handler(tasks: tasks_class) -> None:
        tasks.add_task(note, "hello")

    with patch.object(tasks_class, "add_task") as add_task, TestClient(app) as http:
        assert http.get("/").status_code == 200
    add_task.assert_called_once_with(note, "hello")


async def test_what_an_agents_wrapper_of_add_task_adds_is_stored(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)
    original = fastapi.BackgroundTasks.add_task

    def counted(self: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        said.append("counted")
        original(self, func, *args, **kwargs)

    @app.get("/")
    async def handler(background_tasks: fastapi.BackgroundTasks) -> None:
        background_tasks.add_task(note, "hello")

    with patch.object(fastapi.BackgroundTasks, "add_task", counted):
        async with serving(app) as http:
            await http.get("/")
            await until(lambda: said == ["counted", "hello"])
            assert [one.name for one in await (await tasks.client.open()).find(Query())] == ["note"]


async def test_a_mocked_task_function_is_called_like_any_mock(app: FastAPI) -> None:
    mocked = create_autospec(note)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> bool:
        return tasks.add_task(mocked, "hello") is None

    async with serving(app) as http:
        assert (await http.get("/")).json() is True
        await until(lambda: mocked.call_count == 1)
    mocked.assert_called_once_with("hello")


@pytest.mark.afterwards(real=False)
def test_a_resolver_of_strawberry_adds_tasks() -> None:
    @strawberry.type
    class Root:
        @strawberry.field
        def greet(self, info: strawberry.Info) -> str:
            return added(info.context["background_tasks"])

    app = FastAPI()
    Afterwards(app)
    app.include_router(GraphQLRouter(strawberry.Schema(Root)), prefix="/graphql")
    with TestClient(app) as http:
        assert http.post("/graphql", json={"query": "{ greet }"}).json() == {"data": {"greet": "stored"}}
    assert_enqueued(note, text="hello")


async def test_a_dependency_given_as_a_class_gets_it(app: FastAPI, said: list[str]) -> None:
    class Mailer:
        def __init__(self, tasks: fastapi.BackgroundTasks) -> None:
            self.tasks = tasks

    @app.get("/")
    async def handler(mailer: Annotated[Mailer, Depends()]) -> str:
        return added(mailer.tasks)

    await get(app, said)
