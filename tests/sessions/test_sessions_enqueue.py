"""`f.options(session=...).enqueue(...)`, what is a session, and how long anything lives."""

import asyncio
import gc
import sqlite3
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy
from fastapi import Depends, FastAPI, HTTPException, UploadFile, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from afterwards import BackgroundTasks, InvalidOption, NotStored, State, TaskHandle, task
from afterwards.client.client import Client
from afterwards.core.options import Options
from afterwards.core.task import Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import runtime
from afterwards.tasks.call import WrittenCall
from afterwards.testing.conformance.joining import sqlite_transaction
from face.processes import output
from face.serving import serving, until, until_async
from sessions.sessions_support import Database, Person, greet, stored

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
async def started(app: FastAPI) -> AsyncIterator[FastAPI]:
    async with app.router.lifespan_context(app):
        yield app


async def status_once_stored(handle: TaskHandle[Any]) -> Task:
    async def look() -> Task | None:
        try:
            return await handle.status()
        except NotStored:
            return None

    return await until_async(look)


async def test_it_is_stored_by_the_next_commit(started: FastAPI, database: Database, said: list[str]) -> None:
    async with database.session() as session:
        session.add(Person(name="ada"))
        handle = await greet.options(session=session).enqueue("ada")
        with pytest.raises(NotStored, match="when the session that it was added with commits"):
            await handle.status()
        assert await stored(started) == []
        await session.commit()
        assert (await status_once_stored(handle)).id == handle.id
    await until(lambda: said == ["hello ada"])


async def test_on_the_same_database_it_is_there_when_the_commit_returns(same: FastAPI, database: Database) -> None:
    async with same.router.lifespan_context(same), database.session() as session:
        handle = await greet.options(session=session, delay=60).enqueue("ada")
        await session.commit()
        assert (await handle.status()).state is State.SCHEDULED


async def test_what_is_rolled_back_is_not_stored(started: FastAPI, database: Database) -> None:
    async with database.session() as session:
        session.add(Person(name="ada"))
        handle = await greet.options(session=session).enqueue("ada")
        await session.rollback()
        await session.commit()
        assert await stored(started) == []
        with pytest.raises(NotStored, match="rolled back"):
            await handle.result(timeout=1)


async def test_outside_a_request_the_close_of_the_session_tells_of_what_was_never_committed(
    started: FastAPI, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.session() as session:
        session.add(Person(name="ada"))
        await greet.options(session=session).enqueue("ada")
        await session.flush()
    assert "greet were added with a session that was never committed" in caplog.text
    assert await stored(started) == []


async def test_in_a_request_it_belongs_to_no_chain_and_outlives_an_exception(
    app: FastAPI, database: Database, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/")
    async def handler(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.committed_always)]
    ) -> None:
        tasks.configure(session=session)
        tasks.add_task(greet, "bob")
        await greet.options(session=session).enqueue("ada")
        raise HTTPException(418)

    @app.post("/never")
    async def never(session: Annotated[AsyncSession, Depends(database.opened)]) -> None:
        await greet.options(session=session).enqueue("eve")

    @app.post("/raises")
    async def raises(session: Annotated[AsyncSession, Depends(database.opened)]) -> None:
        await greet.options(session=session).enqueue("eve")
        raise HTTPException(418)

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 418
        await until(lambda: said == ["hello ada"])
        assert (await http.post("/raises")).status_code == 418
        assert "were added with a session" not in caplog.text
        await http.post("/never")
        await until(lambda: "POST /never: greet were added with a session" in caplog.text)
        assert "POST /raises: greet were added" not in caplog.text
        assert len(await stored(app)) == 1


async def test_in_a_thread(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    def handler() -> str:
        with database.sync_session() as session:
            session.add(Person(name="ada"))
            handle = greet.options(session=session).enqueue_sync("ada")
            session.commit()
            return handle.id

    async with serving(app) as http:
        id = (await http.post("/")).json()
        assert (await (await app.state.tasks.get(id)).status()).name == "greet"
        await until(lambda: said == ["hello ada"])


async def test_waiting_workers_hear_of_a_commit(
    same: FastAPI, database: Database, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "POLL", timedelta(minutes=1))  # of the engine, which is not open yet
    async with same.router.lifespan_context(same):
        begun = time.monotonic()
        for number in range(1, 11):
            async with database.session() as session:
                await greet.options(session=session).enqueue(str(number))
                await session.commit()
            await until(lambda number=number: len(said) == number)
        assert time.monotonic() - begun < 20  # seconds; looking for itself, the worker would take 5 for each


SCRIPT = """
import sqlalchemy
from sqlalchemy.orm import Session
from afterwards import Afterwards, task

@task
def greet(name: str) -> None: ...

tasks = Afterwards(url="sqlite:///{tasks}")
engine = sqlalchemy.create_engine("sqlite:///app.db")
with Session(engine) as session:
    session.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS people (name TEXT)"))
    for name, end in (("ada", session.commit), ("eve", session.rollback), ("bob", session.commit)):
        session.execute(sqlalchemy.text("INSERT INTO people VALUES (:name)"), dict(name=name))
        handle = greet.options(session=session).enqueue_sync(name)
        end()
engine.dispose()
"""


@pytest.mark.parametrize("tasks", ["app.db", "tasks.db"])
async def test_in_a_script_the_first_commit_makes_the_tables(tmp_path: Path, tasks: str) -> None:
    for _ in range(2):
        output(SCRIPT.format(tasks=tasks), tmp_path)
    async with SQLiteEngine(tmp_path / tasks) as engine:
        assert [one.arguments for one in reversed(await engine.find(Query()))] == [
            '{"name":"ada"}',
            '{"name":"bob"}',
        ] * 2


async def test_tables_of_a_later_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with SQLiteEngine(path):
        pass
    with sqlite_transaction(path) as transaction:
        transaction.execute("UPDATE afterwards_schema SET version = 999000")
        with pytest.raises(Exception, match="later version of afterwards"):
            SQLiteEngine(path).join(transaction)


@pytest.mark.parametrize("link", [True, False])
async def test_the_file_counts_and_not_how_it_is_written(tmp_path: Path, link: bool) -> None:
    (tmp_path / "real.db").touch()
    (tmp_path / "link.db").symlink_to("real.db")
    with sqlite_transaction(tmp_path / ("link.db" if link else "real.db")) as transaction:
        assert SQLiteEngine(tmp_path / "real.db").join(transaction) is not None
        assert SQLiteEngine(tmp_path / "link.db").join(transaction) is not None
        assert SQLiteEngine(tmp_path / "none.db").join(transaction) is None


class Own(Session):
    """As SQLModel's."""


@pytest.mark.parametrize("kind", ["own", "scoped", "async scoped", "bound to a connection", "one bind for each table"])
async def test_what_is_a_session(same: FastAPI, database: Database, said: list[str], kind: str) -> None:
    async with same.router.lifespan_context(same):
        match kind:
            case "own":
                with Own(database.engine) as own:
                    greet.options(session=own)
                    await greet.options(session=own).enqueue("ada")
                    own.commit()
            case "scoped":
                scoped = scoped_session(sessionmaker(database.engine))
                await greet.options(session=scoped).enqueue("ada")
                scoped.commit()
                scoped.remove()
            case "async scoped":
                async_scoped = async_scoped_session(database.session, asyncio.current_task)  # type: ignore[arg-type]
                await greet.options(session=async_scoped).enqueue("ada")
                await async_scoped.commit()
                await async_scoped.remove()
            case "bound to a connection":
                with database.engine.connect() as connection, Session(connection) as session:
                    await greet.options(session=session).enqueue("ada")
                    session.commit()
            case "one bind for each table":
                with Session(binds={Person: database.engine}) as session:
                    session.add(Person(name="ada"))
                    await greet.options(session=session).enqueue("ada")
                    session.commit()
        await until(lambda: said == ["hello ada"])


@pytest.mark.parametrize(
    "wrong", [5, "session", Session, sessionmaker(), sqlalchemy.create_engine("sqlite://"), object()]
)
async def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="give a session of SQLAlchemy or SQLModel"):
        greet.options(session=wrong)
    with pytest.raises(InvalidOption, match="give a session of SQLAlchemy or SQLModel"):
        BackgroundTasks().configure(session=wrong)


async def test_a_task_function_has_no_session(database: Database) -> None:
    with database.sync_session() as session, pytest.raises(InvalidOption, match="session is for one call"):
        task(session=session)  # type: ignore[call-overload]


async def test_a_session_shows_nowhere(database: Database, tmp_path: Path) -> None:
    with database.sync_session() as session:
        with_session = greet.options(session=session)
        assert "session=" not in repr(with_session) + repr(with_session.settings)
        assert with_session.settings == greet.settings
        new = with_session.calls.new_task(Client("memory://", Options()), WrittenCall("{}"))
        assert new.overrides is None


async def test_what_comes_after_a_task_of_a_session_needs_that_session(same: FastAPI, database: Database) -> None:
    async with same.router.lifespan_context(same):
        with database.sync_session() as session:
            tasks = BackgroundTasks()
            first = tasks.add_task(greet.options(session=session), "first")
            with pytest.raises(NotStored, match="the same session"):
                tasks.add_task(greet.options(after=first), "second")
            tasks.add_task(greet.options(after=first, session=session), "second")
            session.rollback()


@task
async def keep_file(file: UploadFile) -> None: ...


@pytest.mark.parametrize("threaded", [False, True])
async def test_the_file_of_a_call_that_is_rolled_back_is_deleted(
    app: FastAPI, database: Database, tmp_path: Path, threaded: bool
) -> None:
    def in_a_thread(file: UploadFile) -> None:
        with database.sync_session() as session:
            keep_file.options(session=session).enqueue_sync(file)
            raise HTTPException(418)

    async def on_the_loop(file: UploadFile) -> None:
        async with database.session() as session:
            await keep_file.options(session=session).enqueue(file)
            raise HTTPException(418)

    app.post("/")(in_a_thread if threaded else on_the_loop)
    async with serving(app) as http:
        assert (await http.post("/", files={"file": b"abc"})).status_code == 418
        path = tmp_path / "tasks.db"
        await until(lambda: files_in(path if path.exists() else database.path) == 0)


@task(unique="{name}")
async def keep_once(file: UploadFile, name: str) -> None: ...


@pytest.mark.parametrize("threaded", [False, True])
async def test_the_file_of_a_call_that_another_task_answers_is_deleted(
    app: FastAPI, database: Database, tmp_path: Path, threaded: bool
) -> None:
    def in_a_thread(file: UploadFile) -> None:
        with database.sync_session() as session:
            keep_once.options(session=session, delay=60).enqueue_sync(file, "a")
            session.commit()

    async def on_the_loop(file: UploadFile) -> None:
        async with database.session() as session:
            await keep_once.options(session=session, delay=60).enqueue(file, "a")
            await session.commit()

    app.post("/")(in_a_thread if threaded else on_the_loop)
    async with serving(app) as http:
        path = tmp_path / "tasks.db"
        for _ in range(2):
            assert (await http.post("/", files={"file": b"abc"})).status_code == 200
            await until(lambda: files_in(path if path.exists() else database.path) == 1)
        assert len(await stored(app)) == 1


def files_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        [count] = connection.execute("SELECT count(*) FROM afterwards_files").fetchone()
        return int(count)


async def test_an_upload_cannot_wait_for_a_session(same: FastAPI, database: Database) -> None:
    @task(name="keep_with_session")
    async def keep(file: UploadFile) -> None: ...

    async with same.router.lifespan_context(same):
        with database.sync_session() as session:
            upload = UploadFile(BytesIO(b"content"), size=7, filename="a.txt")
            with pytest.raises(InvalidOption, match=r"await keep_with_session\.options\(session=\.\.\.\)"):
                BackgroundTasks().add_task(keep.options(session=session), upload)


async def test_no_session_is_kept_alive(same: FastAPI, database: Database) -> None:
    ends = {
        "commit": Session.commit,
        "rollback": Session.rollback,
        "close": Session.close,
        "none": lambda session: None,
    }
    async with same.router.lifespan_context(same):
        alive = []
        for end in ends.values():
            session = database.sync_session()
            await greet.options(session=session, delay=60).enqueue("ada")
            end(session)
            session.close()
            alive.append(weakref.ref(session))
            del session
        gc.collect()
        assert [session() for session in alive] == [None] * len(ends)


async def test_a_request_leaves_nothing_in_a_session_that_lives_on(same: FastAPI, database: Database) -> None:
    with database.sync_session() as session:

        @same.post("/")
        async def handler(tasks: BackgroundTasks) -> None:
            tasks.configure(session=session)
            tasks.add_task(greet, "ada")

        async with serving(same) as http:
            for _ in range(5):
                await http.post("/")
        waiting = session.info["afterwards"]._waiting
        assert len(waiting) == 1


async def test_a_websocket(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.websocket("/")
    async def handler(socket: WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        async with database.session() as session:
            tasks.configure(session=session)
            tasks.add_task(greet, "eve")
            session.add(Person(name="eve"))
            await session.rollback()
            tasks.add_task(greet, "ada")
            await session.commit()
        await socket.close()

    async with serving(app) as http:
        async with connect(f"ws://127.0.0.1:{http.base_url.port}/", proxy=None) as connection:
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        await until(lambda: said == ["hello ada"])


async def test_a_websocket_handler_that_raises_stores_nothing_even_if_an_exit_commits(
    app: FastAPI, database: Database
) -> None:
    @app.websocket("/")
    async def handler(
        socket: WebSocket,
        tasks: BackgroundTasks,
        session: Annotated[AsyncSession, Depends(database.committed_always)],
    ) -> None:
        await socket.accept()
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        tasks.add_task(greet, "ada")
        raise ValueError("no")

    async with serving(app) as http:
        async with connect(f"ws://127.0.0.1:{http.base_url.port}/", proxy=None) as connection:
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        await until(database.people)
        assert await stored(app) == []


@pytest.mark.afterwards(real=False)
@pytest.mark.parametrize("scope", ["function", "request"])
async def test_in_an_applications_tests_they_run_within_the_request(
    app: FastAPI, database: Database, said: list[str], scope: Any
) -> None:
    def committed() -> Any:
        with database.sync_session() as session:
            yield session
            session.commit()

    @app.post("/")
    def handler(tasks: BackgroundTasks, session: Annotated[Session, Depends(committed, scope=scope)]) -> None:
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        tasks.add_task(greet, "ada")

    def ask() -> list[str]:
        with TestClient(app) as client:
            client.post("/").raise_for_status()
            return list(said)

    assert await asyncio.to_thread(ask) == ["hello ada"]


async def test_what_another_store_refuses_after_the_commit_is_said_to_be_lost(
    another: FastAPI, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with another.router.lifespan_context(another):
        with sqlite_transaction(tmp_path / "tasks.db") as transaction:
            transaction.execute(
                "CREATE TRIGGER no BEFORE INSERT ON afterwards_tasks BEGIN SELECT raise(FAIL, 'no'); END"
            )
        async with database.session() as session:
            handle = await greet.options(session=session).enqueue("ada")
            await session.commit()
            await until(lambda: "after the commit of their session" in caplog.text)
            with pytest.raises(NotStored):
                await handle.status()
