"""Dependencies with `yield`, which are open while tasks are added."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, post, situation, wait_for
from differential.tasks import async_note, note


async def async_session() -> AsyncIterator[str]:
    record("session: opened")
    yield "session"
    record("session: closed")


def session() -> Iterator[str]:
    record("session in a thread: opened")
    yield "session in a thread"
    record("session in a thread: closed")


@situation(post("/"), wait_for("async note with session: ends", "session: closed"), post("/thread"))
def request_scoped_session(kit: Kit) -> FastAPI:
    """A dependency with `yield`, which FastAPI closes when the response has been sent."""
    app = kit.app()
    task = kit.task(async_note)

    @app.post("/")
    async def handler(
        opened: Annotated[str, Depends(async_session)], background_tasks: kit.BackgroundTasks
    ) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, f"with {opened}")
        return {"message": "accepted"}

    @app.post("/thread")
    def thread(
        background_tasks: kit.BackgroundTasks, opened: Annotated[str, Depends(session, scope="request")]
    ) -> dict[str, str]:
        record("handler in a thread")
        background_tasks.add_task(task, f"with {opened}")
        return {"message": "accepted"}

    return app


@situation(post("/"), wait_for("async note with session: ends"), post("/thread"))
def function_scoped_session(kit: Kit) -> FastAPI:
    """A dependency with `yield`, which FastAPI closes before the response is sent."""
    app = kit.app()
    task = kit.task(async_note)

    @app.post("/")
    async def handler(
        opened: Annotated[str, Depends(async_session, scope="function")], background_tasks: kit.BackgroundTasks
    ) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, f"with {opened}")
        return {"message": "accepted"}

    @app.post("/thread")
    def thread(
        background_tasks: kit.BackgroundTasks, opened: Annotated[str, Depends(session, scope="function")]
    ) -> dict[str, str]:
        record("handler in a thread")
        background_tasks.add_task(task, f"with {opened}")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def nested_sessions(kit: Kit) -> FastAPI:
    """Three dependencies with `yield`, each in the next, closed inside out."""
    app = kit.app()
    task = kit.task(note)

    async def connection() -> AsyncIterator[str]:
        yield "connection"
        record("connection: closed")

    def transaction(connection: Annotated[str, Depends(connection)]) -> Iterator[str]:
        yield f"transaction on {connection}"
        record("transaction: closed")

    async def repository(transaction: Annotated[str, Depends(transaction)]) -> AsyncIterator[str]:
        yield f"repository in {transaction}"
        record("repository: closed")

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, repository: Annotated[str, Depends(repository)]
    ) -> dict[str, str]:
        background_tasks.add_task(task, repository)
        return {"message": "accepted"}

    return app


def connected(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, check_same_thread=False)


def order_looked_up(database: Path, article: str) -> None:
    with closing(connected(database)) as connection:
        found = connection.execute("SELECT 1 FROM orders WHERE article = ?", (article,)).fetchone()
    record(f"{article}: the task {'sees it' if found else 'does not see it'}")
    record(f"{article}: looked")


@situation(post("/orders/tea"), wait_for("tea: committed", "tea: looked"), post("/orders/coffee/function-scoped"))
def what_the_request_commits(kit: Kit) -> FastAPI:
    """The session commits when it is closed, and the task reads the table."""
    app = kit.app()
    task = kit.task(order_looked_up)
    database = kit.folder / "orders.db"
    with closing(connected(database)) as connection:
        connection.execute("CREATE TABLE orders (article TEXT)")

    def database_session(article: str) -> Iterator[sqlite3.Connection]:
        with closing(connected(database)) as connection:
            yield connection
            connection.commit()
            record(f"{article}: committed")

    @app.post("/orders/{article}")
    def order(
        article: str,
        background_tasks: kit.BackgroundTasks,
        connection: Annotated[sqlite3.Connection, Depends(database_session)],
    ) -> dict[str, str]:
        connection.execute("INSERT INTO orders VALUES (?)", (article,))
        background_tasks.add_task(task, database, article)
        return {"message": "ordered"}

    @app.post("/orders/{article}/function-scoped")
    def order_at_once(
        article: str,
        background_tasks: kit.BackgroundTasks,
        connection: Annotated[sqlite3.Connection, Depends(database_session, scope="function")],
    ) -> dict[str, str]:
        connection.execute("INSERT INTO orders VALUES (?)", (article,))
        background_tasks.add_task(task, database, article)
        return {"message": "ordered"}

    return app


@situation(post("/"))
def session_that_adds_a_task_when_it_opens(kit: Kit) -> FastAPI:
    """A request-scoped dependency with `yield` may ask for the object; FastAPI allows it."""
    app = kit.app()
    task = kit.task(note)

    async def audited(background_tasks: kit.BackgroundTasks) -> AsyncIterator[None]:
        background_tasks.add_task(task, "opened")
        yield
        record("audited: closed")

    @app.post("/")
    async def handler(_: Annotated[None, Depends(audited)], background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def session_that_adds_a_task_when_it_closes(kit: Kit) -> FastAPI:
    """The same, and what it adds when the response has gone."""
    app = kit.app()
    task = kit.task(note)

    async def audited(background_tasks: kit.BackgroundTasks) -> AsyncIterator[None]:
        yield
        record("audited: closes")
        background_tasks.add_task(task, "closed")

    @app.post("/")
    async def handler(_: Annotated[None, Depends(audited)]) -> dict[str, str]:
        return {"message": "accepted"}

    return app


@situation(post("/"))
def function_scoped_session_that_adds_tasks(kit: Kit) -> FastAPI:
    """It closes before the response, so FastAPI runs what it adds then."""
    app = kit.app()
    task = kit.task(note)

    def audited(background_tasks: kit.BackgroundTasks) -> Iterator[None]:
        background_tasks.add_task(task, "opened")
        yield
        record("audited: closes")
        background_tasks.add_task(task, "closed")

    @app.post("/")
    async def handler(
        _: Annotated[None, Depends(audited, scope="function")], background_tasks: kit.BackgroundTasks
    ) -> dict[str, str]:
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    return app


@situation(get("/"))
def session_of_a_stream(kit: Kit) -> FastAPI:
    """A request-scoped session stays open for the body of a stream."""
    app = kit.app()
    task = kit.task(async_note)

    @app.get("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, opened: Annotated[str, Depends(async_session)]
    ) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            record("stream: begins")
            yield opened
            record("stream: ends")

        background_tasks.add_task(task, "after the stream")
        return StreamingResponse(body(), media_type="text/plain")

    return app
