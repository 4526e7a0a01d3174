"""``Afterwards(app)``: anywhere in the file, beside what the application has already."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from afterwards import Afterwards, BackgroundTasks, State, task
from afterwards.core.errors import AlreadyStarted, InvalidOption, UnsupportedEngine
from afterwards.engine import Query
from face.diary import note
from face.diary import said as the_diary
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def pool(request: Request) -> Any:
    return request.state.pool


async def of_the_router(request: Request) -> Any:
    return request.state.of_the_router


@task
async def use_pool(text: str, pool: Annotated[Any, Depends(pool)]) -> None:
    pool.append(text)


@task
async def use_the_routers(text: str, resource: Annotated[Any, Depends(of_the_router)]) -> None:
    resource.append(text)


@task
async def add_another(text: str) -> None:
    the_diary.append(text)
    await note.enqueue("another")


def with_a_route(app: FastAPI) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")


async def works(app: FastAPI, said: list[str]) -> None:
    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["run"])


@pytest.mark.parametrize("installed_first", [True, False])
async def test_it_works_before_and_after_the_routes(url: str, said: list[str], installed_first: bool) -> None:
    app = FastAPI()
    if installed_first:
        Afterwards(app, url)
    with_a_route(app)
    if not installed_first:
        Afterwards(app, url)
    await works(app, said)


async def test_an_application_factory_installs_later(url: str, said: list[str]) -> None:
    tasks = Afterwards(url=url)

    def create_app() -> FastAPI:
        app = FastAPI()
        tasks.install(app)
        with_a_route(app)
        return app

    await works(create_app(), said)


async def test_installing_into_an_application_that_has_started_is_refused(url: str) -> None:
    app = FastAPI()
    async with serving(app):
        with pytest.raises(AlreadyStarted, match="call it right after"):
            Afterwards(app, url)


def test_the_application_comes_first() -> None:
    for wrong in ("sqlite:///tasks.db", APIRouter()):
        with pytest.raises(InvalidOption, match="application"):
            Afterwards(wrong)  # type: ignore[arg-type]


def test_queues_are_not_the_letters_of_one() -> None:
    with pytest.raises(InvalidOption, match="collection of names"):
        Afterwards(queues="mail")


def test_installing_twice_is_refused(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)
    with pytest.raises(RuntimeError, match="already"):
        Afterwards(app, url)
    with pytest.raises(RuntimeError, match="already"):
        tasks.install(app)


def test_nothing_is_opened_before_the_application_starts(tmp_path: Path) -> None:
    app = FastAPI()
    Afterwards(app, f"sqlite:///{tmp_path / 'tasks.db'}")
    with_a_route(app)
    assert list(tmp_path.iterdir()) == []


async def test_the_users_lifespan_is_kept_with_its_state_and_surrounds_the_worker(url: str, said: list[str]) -> None:
    shared: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        said.append("started")
        await use_pool.enqueue("at the start")
        yield {"pool": shared}
        said.append(f"stopped after {shared}")

    app = FastAPI(lifespan=lifespan)
    Afterwards(app, url)

    @app.get("/")
    async def handler(request: Request, tasks: BackgroundTasks) -> list[str]:
        tasks.add_task(use_pool, "by a request")
        return list(request.state.pool)

    async with serving(app) as http:
        await until(lambda: shared)
        assert (await http.get("/")).json() == ["at the start"]
        await until(lambda: len(shared) == 2)
    assert said == ["started", "stopped after ['at the start', 'by a request']"]


async def test_the_lifespan_of_a_router_included_later_surrounds_the_worker_too(url: str, said: list[str]) -> None:
    shared: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        await use_the_routers.enqueue("at the start")
        yield {"of_the_router": shared}
        said.append(f"stopped after {shared}")

    app = FastAPI()
    Afterwards(app, url)
    app.include_router(APIRouter(lifespan=lifespan))
    async with serving(app):
        await until(lambda: shared)
    assert said == ["stopped after ['at the start']"]


async def test_the_application_starts_and_stops_twice(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)
    with_a_route(app)
    await works(app, said)
    said.clear()
    await works(app, said)


async def test_what_a_worker_left_is_run_at_the_next_start(url: str, said: list[str]) -> None:
    storing, running = FastAPI(), FastAPI()
    Afterwards(storing, url, worker=False)
    with_a_route(storing)
    Afterwards(running, url)
    async with serving(storing) as http:
        await http.get("/")
        assert said == []
    async with serving(running):
        await until(lambda: said == ["run"])


async def test_with_worker_false_tasks_are_only_stored(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = FastAPI()
    tasks = Afterwards(app, url, worker=False)
    with_a_route(app)
    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        engine = await tasks.client.open()
        while [task.state for task in await engine.find(Query())] != [State.QUEUED]:  # noqa: ASYNC110  # published after the answer
            await asyncio.sleep(0.01)
    assert said == []
    assert not [r for r in caplog.records if "without its lifespan" in r.message]
    assert [r for r in caplog.records if "no worker in this process" in r.message]


async def test_two_installations_keep_their_tasks_apart(tmp_path: Path, said: list[str]) -> None:
    one, two = FastAPI(), FastAPI()
    of_one = Afterwards(one, "memory://one-of-two", worker=False)
    of_two = Afterwards(two, "memory://two-of-two", worker=False)
    with_a_route(one)
    with_a_route(two)
    async with serving(one) as http, serving(two):
        await http.get("/")
        assert len(await (await of_one.client.open()).find(Query())) == 1
        assert await (await of_two.client.open()).find(Query()) == []


async def test_a_task_enqueues_into_the_installation_that_runs_it(url: str, said: list[str]) -> None:
    other, app = FastAPI(), FastAPI()
    Afterwards(other, "memory://another-installation", worker=False)
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(add_another, "one")

    async with serving(other), serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["one", "another"])


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://x.db", "sqlite:///:memory:", "sqlite:///x.db?a=1"]
)
async def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedEngine, match="sqlite:///"):
        await Afterwards(FastAPI(), url).client.open()


async def test_the_startup_line_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "afterwards")
    monkeypatch.chdir(tmp_path)
    app = FastAPI()
    Afterwards(app, "sqlite:///relative.db", concurrency=7, threads=3)
    async with serving(app):
        pass
    [line] = [r.message for r in caplog.records if "worker here" in r.message]
    assert f"sqlite:///{tmp_path}/relative.db" in line
    assert "7 tasks and 3 threads" in line


def test_the_environment_fills_what_the_code_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWARDS_URL", "memory://from-the-environment")
    monkeypatch.setenv("AFTERWARDS_WORKER", "off")
    assert Afterwards().client.url == "memory://from-the-environment"
    assert not Afterwards().options.worker
    assert Afterwards(url="memory://code").client.url == "memory://code"
    assert Afterwards(worker=True).options.worker
    monkeypatch.setenv("AFTERWARDS_WORKER", "maybe")
    with pytest.raises(InvalidOption, match="on or off"):
        Afterwards()


def test_the_default_is_a_file_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFTERWARDS_URL", raising=False)
    monkeypatch.delenv("AFTERWARDS_WORKER", raising=False)
    assert Afterwards().client.url == f"sqlite:///{tmp_path}/afterwards.db"
    assert Afterwards().options.worker


@pytest.mark.parametrize(("mode", "grace"), [("development", 1), ("production", 20)])
def test_the_grace_period_is_short_in_development(monkeypatch: pytest.MonkeyPatch, mode: str, grace: int) -> None:
    monkeypatch.setenv("FASTAPI_ENV", mode)
    assert Afterwards().options.grace.total_seconds() == grace
    assert Afterwards(grace=5).options.grace.total_seconds() == 5


@pytest.mark.parametrize("url", ["redis://user:secret@host/0", "mysql+pymysql://user:secret@host:3306/db", "nonsense"])
async def test_an_engine_that_is_not_there_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(UnsupportedEngine, match="sqlite:///") as error:
        await Afterwards(url=url).client.open()
    assert "secret" not in str(error.value)
