"""Tasks in the application's own transactions on PostgreSQL: SQLAlchemy's sessions, and connections of psycopg's."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy
from fastapi import FastAPI
from fastapi.testclient import TestClient
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from afterwards import Afterwards, BackgroundTasks, InvalidOption
from afterwards.engines.postgres.migrating import migrate
from face.serving import until
from sessions.sessions_support import Base, Person, greet, stored

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True), pytest.mark.xdist_group("postgres_sessions")]


@pytest.fixture
async def app(postgres_url: str) -> AsyncIterator[FastAPI]:
    """An application that serves and works, whose tasks are kept in its own database."""
    app = FastAPI()
    app.state.tasks = Afterwards(app, postgres_url)
    engine = sqlalchemy.create_engine(with_driver(postgres_url, "psycopg"))
    Base.metadata.create_all(engine)
    engine.dispose()
    async with app.router.lifespan_context(app):
        yield app


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql:", f"postgresql+{driver}:")


def people(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM people ORDER BY name")]


# SQLAlchemy's sessions.


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_task_commits_with_the_rows_of_an_asynchronous_session(
    app: FastAPI, postgres_url: str, driver: str, said: list[str]
) -> None:
    engine = create_async_engine(with_driver(postgres_url, driver))
    async with AsyncSession(engine) as session:
        session.add(Person(name="ada"))
        handle = await greet.options(session=session).enqueue("ada")
        keyed = await greet.options(session=session, unique="one").enqueue("eve")
        assert await stored(app) == []
        await session.commit()
        assert (await handle.status()).id == handle.id
        assert (await keyed.status()).unique_key
        session.add(Person(name="bob"))
        await greet.options(session=session).enqueue("bob")
        await session.rollback()
    await engine.dispose()
    await until(lambda: sorted(said) == ["hello ada", "hello eve"])
    assert people(postgres_url) == ["ada"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
async def test_a_task_commits_with_the_rows_of_a_session(
    app: FastAPI, postgres_url: str, driver: str, said: list[str]
) -> None:
    engine = sqlalchemy.create_engine(with_driver(postgres_url, driver))
    with Session(engine) as session:
        session.add(Person(name="ada"))
        handle = await greet.options(session=session, unique="one").enqueue("ada")
        session.commit()
        assert (await handle.status()).id == handle.id
    engine.dispose()
    await until(lambda: said == ["hello ada"])


async def test_before_anybody_has_opened_the_engine_a_session_makes_the_tables(postgres_url: str) -> None:
    installed = FastAPI()
    installed.state.tasks = Afterwards(installed, postgres_url)
    engine = sqlalchemy.create_engine(with_driver(postgres_url, "psycopg"))
    with Session(engine) as session:
        await greet.options(session=session).enqueue("ada")
        session.execute(sqlalchemy.text("SELECT 1"))
        session.commit()
    engine.dispose()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT name, state FROM afterwards_tasks").fetchall() == [("greet", "queued")]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
async def test_a_task_commits_with_the_rows_of_a_session_that_commits_in_two_phases(
    app: FastAPI, postgres_url: str, driver: str, said: list[str]
) -> None:
    engine = sqlalchemy.create_engine(with_driver(postgres_url, driver))
    with Session(engine, twophase=True) as session:
        session.add(Person(name="ada"))
        await greet.options(session=session).enqueue("ada")
        session.prepare()
        assert await stored(app) == []
        session.commit()
    engine.dispose()
    await until(lambda: said == ["hello ada"])
    assert people(postgres_url) == ["ada"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("option", [{}, {"unique": "one"}], ids=["plain", "unique"])
async def test_a_session_that_commits_each_statement_has_its_task_stored_after_its_commit(
    app: FastAPI, postgres_url: str, driver: str, option: dict[str, Any], said: list[str]
) -> None:
    engine = create_async_engine(with_driver(postgres_url, driver), isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        session.add(Person(name="ada"))
        await greet.options(session=session, **option).enqueue("ada")
        await session.commit()
    await engine.dispose()
    await until(lambda: said == ["hello ada"])
    assert people(postgres_url) == ["ada"]


async def test_a_session_with_a_snapshot_from_before_the_tables_stores_its_task(postgres_url: str) -> None:
    installed = FastAPI()
    installed.state.tasks = Afterwards(installed, postgres_url)
    engine = sqlalchemy.create_engine(with_driver(postgres_url, "psycopg"), isolation_level="REPEATABLE READ")
    with Session(engine) as session:
        session.execute(sqlalchemy.text("SELECT 1"))
        assert await migrate(postgres_url)
        await greet.options(session=session).enqueue("ada")
        session.commit()
    engine.dispose()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT name, state FROM afterwards_tasks").fetchall() == [("greet", "queued")]


# Connections of psycopg's.


@pytest.mark.parametrize("commit", [True, False])
async def test_a_task_shares_the_fate_of_an_asynchronous_connection(
    app: FastAPI, postgres_url: str, commit: bool, said: list[str]
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url, row_factory=dict_row) as connection:
        await connection.execute("INSERT INTO people VALUES ('ada')")
        await greet.options(connection=connection).enqueue("ada")
        await greet.options(connection=connection, unique="one").enqueue("eve")
        assert await stored(app) == []
        await (connection.commit() if commit else connection.rollback())
    await until(lambda: len(said) == (2 if commit else 0))
    assert len(await stored(app)) == len(said)
    assert people(postgres_url) == (["ada"] if commit else [])


@pytest.mark.parametrize("commit", [True, False])
async def test_a_task_shares_the_fate_of_a_connection(
    app: FastAPI, postgres_url: str, commit: bool, said: list[str]
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO people VALUES ('ada')")
        await greet.options(connection=connection).enqueue("ada")
        (connection.commit if commit else connection.rollback)()
    await until(lambda: len(said) == commit)
    assert len(await stored(app)) == commit


def add(url: str, commit: bool, raises: bool = False) -> Callable[[BackgroundTasks], None]:
    def handler(tasks: BackgroundTasks) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            with pytest.raises(InvalidOption, match="autocommit mode, and no transaction is open"):
                tasks.add_task(greet.options(connection=connection), "ada")
            with connection.transaction(force_rollback=not commit):
                tasks.configure(connection=connection)
                tasks.add_task(greet, "ada")
                tasks.add_task(greet, "eve")
                tasks.configure(connection=None)
        tasks.add_task(greet, "bob")
        if raises:
            raise ValueError("after the commit")

    return handler


@pytest.mark.parametrize(("commit", "names"), [(True, ["ada", "eve", "bob"]), (False, ["bob"])])
async def test_in_a_request_tasks_start_in_order_when_it_has_ended(
    postgres_url: str, commit: bool, names: list[str], said: list[str]
) -> None:
    app = FastAPI()
    app.state.tasks = Afterwards(app, postgres_url)
    app.post("/")(add(postgres_url, commit))
    with TestClient(app) as client:
        assert client.post("/").status_code == 200
        await until(lambda: said == [f"hello {name}" for name in names])


async def test_what_was_committed_stays_when_the_handler_raises(postgres_url: str, said: list[str]) -> None:
    app = FastAPI()
    app.state.tasks = Afterwards(app, postgres_url)
    app.post("/")(add(postgres_url, commit=True, raises=True))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/").status_code == 500
        await until(lambda: said == ["hello ada", "hello eve"])


async def test_a_connection_to_another_database_is_refused(app: FastAPI, postgres: Any) -> None:
    with psycopg.connect(postgres.url()) as connection, pytest.raises(InvalidOption, match="not on the database"):
        await greet.options(connection=connection).enqueue("ada")
    assert await stored(app) == []


async def test_what_is_no_connection_is_refused(postgres_url: str) -> None:
    for wrong in ("connection", object(), psycopg.Connection):
        with pytest.raises(InvalidOption, match="give a connection of psycopg 3"):
            greet.options(connection=wrong)  # type: ignore[arg-type]
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        with pytest.raises(InvalidOption, match="only `await` can use it"):
            BackgroundTasks().configure(connection=connection)


async def test_a_session_beside_a_connection_is_refused_in_either_order(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection, Session() as session:
        one: dict[str, Any] = {"session": session}
        other: dict[str, Any] = {"connection": connection}
        for first, second in ((one, other), (other, one)):
            background_tasks = BackgroundTasks()
            background_tasks.configure(**first)
            with pytest.raises(InvalidOption, match="both given"):
                background_tasks.configure(**second)
            background_tasks.configure(**dict.fromkeys(first), **second)


# What a commit promises.


@pytest.mark.parametrize("level", ["off", "local", "on"])
async def test_a_connection_that_may_lose_its_last_commits_is_named(
    app: FastAPI, postgres_url: str, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    with psycopg.connect(postgres_url, options=f"-c synchronous_commit={level}") as connection:
        for name in ("ada", "bob"):
            await greet.options(connection=connection).enqueue(name)
    assert caplog.text.count("synchronous_commit is off") == (level == "off")


async def test_a_server_that_may_lose_its_last_commits_is_named(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    Afterwards(app, f"{postgres_url}?options=-c%20synchronous_commit%3Doff")
    async with app.router.lifespan_context(app):
        await (await greet.enqueue("ada")).result(timeout=20)
    assert caplog.text.count("synchronous_commit is off") == 1
