"""Reports on what a task shares with its request: rows, files, and the context."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy
from fastapi import Depends, FastAPI, Request, Response, UploadFile
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from afterwards import Afterwards, BackgroundTasks, Retry, UnstorableArgument, task
from face.diary import said as the_diary
from face.serving import records, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class Base(DeclarativeBase):
    pass


class Build(Base):
    __tablename__ = "builds"
    name: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@task
def look_for(name: str, file: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        the_diary.append(str(connection.execute("SELECT name FROM builds WHERE name = ?", (name,)).fetchall()))


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("commits", [True, False])
async def test_a_task_begins_after_the_commit_of_its_requests_session(
    url: str, database: sqlalchemy.Engine, said: list[str], tmp_path: Path, scope: Any, commits: bool
) -> None:
    """A worker looked for a row before the request's session had committed it, and found nothing.

    https://github.com/AlmaLinux/build-system/issues/541
    """

    def session() -> Iterator[Session]:
        with Session(database) as session:
            yield session
            if commits:
                session.commit()

    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    def handler(tasks: BackgroundTasks, db: Annotated[Session, Depends(session, scope=scope)]) -> None:
        db.add(Build(name="kernel"))
        db.flush()
        tasks.add_task(look_for, "kernel", str(tmp_path / "app.db"))

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said)
    assert said == ["[('kernel',)]" if commits else "[]"]


@task
async def start(build: str) -> None:
    the_diary.append(build)


async def test_a_row_of_a_session_is_refused_when_it_is_added(
    url: str, database: sqlalchemy.Engine, said: list[str]
) -> None:
    """Tasks were given rows of a session that was closed when they began, and failed or hung.

    https://github.com/mikesvoboda/nemotron-v3-home-security-intelligence/issues/4525
    """
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> str:
        with Session(database) as db:
            with pytest.raises(UnstorableArgument, match="build") as refused:
                background_tasks.add_task(start, Build(name="kernel"))  # type: ignore[arg-type]
            with pytest.raises(UnstorableArgument, match="db"):
                background_tasks.add_task(use, db)
        return str(refused.value)

    async with serving(app) as http:
        assert "kernel" not in (await http.get("/")).json()
        assert await records(tasks) == []


@task
async def use(db: Any) -> None: ...


class Passing:
    """Reads the body before anybody else does."""

    async def __call__(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        await request.body()
        return await call_next(request)


@task(retries=Retry(1, wait=0))
async def read_twice(file: UploadFile, text: str = "") -> None:
    assert file.file.closed is False
    content = (await file.read()).decode()
    the_diary.append(f"{file.filename} {content} {text}")
    await file.close()
    if len(the_diary) == 1:
        raise ConnectionError("again")


@task
def read_in_a_thread(file: UploadFile) -> None:
    the_diary.append(f"{file.filename} {file.file.read().decode()}")


async def test_an_uploaded_file_is_open_in_each_attempt_although_the_request_has_closed_it(
    url: str, said: list[str]
) -> None:
    """An uploaded file that was given to a task was closed when the task read it.

    https://github.com/fastapi/fastapi/issues/10857
    """
    app = FastAPI()
    Afterwards(app, url)
    app.middleware("http")(Passing())

    @app.post("/")
    async def handler(file: UploadFile, tasks: BackgroundTasks) -> None:
        assert await file.read(1) == b"o"
        tasks.add_task(read_twice, file, text="first")
        tasks.add_task(read_in_a_thread, file)
        await file.seek(2)

    async with serving(app) as http:
        assert (await http.post("/", files={"file": ("a.txt", b"one")})).status_code == 200
        await until(lambda: len(said) == 3)
    assert said == ["a.txt one first", "a.txt one first", "a.txt one"]


request_id: ContextVar[str] = ContextVar("request_id", default="none")
bound: ContextVar[dict[str, str]] = ContextVar("bound")


@task
async def look() -> None:
    look_around()


@task
def look_in_a_thread() -> None:
    look_around()


def look_around() -> None:
    the_diary.append(f"{request_id.get()} {sorted(bound.get({}))}")
    request_id.set("of a task")
    bound.set(bound.get({}) | {"task": "bound"})


FUNCTIONS = pytest.mark.parametrize("function", [look, look_in_a_thread], ids=lambda one: one.name)


@FUNCTIONS
async def test_the_context_of_a_request_is_there_for_every_kind_of_task(
    url: str, said: list[str], function: Any
) -> None:
    """Context variables that asynchronous tasks saw were lost to synchronous ones.

    https://github.com/taskiq-python/taskiq/issues/482
    """
    app = FastAPI()
    Afterwards(app, url, propagate=[request_id])

    async def identify(id: str) -> AsyncIterator[None]:
        token = request_id.set(id)
        yield
        request_id.reset(token)

    @app.get("/{id}", dependencies=[Depends(identify)])
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(function)

    async with serving(app) as http:
        for id in ("one", "two"):
            assert (await http.get(f"/{id}")).status_code == 200
            await until(lambda id=id: said[-1:] == [f"{id} []"])


@FUNCTIONS
async def test_what_a_task_binds_is_not_bound_in_the_next(url: str, said: list[str], function: Any) -> None:
    """What one task had put into the context was in the reports of the next.

    https://github.com/canonical-ols/talisker/issues/443
    """
    async with working(url, concurrency=1, threads=1):
        for _ in range(3):
            await (await function.enqueue()).result(timeout=10)
    assert said == ["none []"] * 3
