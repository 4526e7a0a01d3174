"""A session that commits after the response: what a 2xx promised is stored late, which is warned of."""

import logging
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from afterwards import BackgroundTasks
from face.serving import serving, until
from sessions.sessions_support import Database, Person, greet

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelno == logging.WARNING and "is sent before" in r.message]


@pytest.mark.parametrize(("scope", "late"), [("request", True), ("function", False)])
@pytest.mark.parametrize("way", ["configure", "options", "enqueue"])
async def test_a_commit_after_the_response_is_warned_of_once_and_names_the_remedy(
    app: FastAPI,
    database: Database,
    said: list[str],
    caplog: pytest.LogCaptureFixture,
    scope: Any,
    late: bool,
    way: str,
) -> None:
    @app.post("/{name}")
    async def handler(
        name: str,
        tasks: BackgroundTasks,
        session: Annotated[AsyncSession, Depends(database.committed, scope=scope)],
    ) -> None:
        session.add(Person(name=name))
        match way:
            case "configure":
                tasks.configure(session=session)
                tasks.add_task(greet, name)
            case "options":
                tasks.add_task(greet.options(session=session), name)
            case _:
                await greet.options(session=session).enqueue(name)

    async with serving(app) as http:
        for name in ("ann", "bob"):
            assert (await http.post(f"/{name}")).status_code == 200
        await until(lambda: len(said) == 2)
    assert len(warnings(caplog)) == int(late)
    assert all('scope="function"' in line and "'greet'" in line for line in warnings(caplog))


@pytest.mark.parametrize(("status", "warned"), [(299, True), (307, True), (400, False), (500, False)])
async def test_an_error_answer_promises_nothing(
    app: FastAPI, database: Database, said: list[str], caplog: pytest.LogCaptureFixture, status: int, warned: bool
) -> None:
    @app.post("/")
    async def handler(
        tasks: BackgroundTasks,
        session: Annotated[AsyncSession, Depends(database.committed, scope="request")],
    ) -> Response:
        tasks.configure(session=session)
        session.add(Person(name="ann"))
        tasks.add_task(greet, "ann")
        return Response(status_code=status)

    async with serving(app) as http:
        assert (await http.post("/")).status_code == status
        await until(lambda: said)  # what the session commits is stored, whatever was answered
    assert bool(warnings(caplog)) == warned


async def test_a_commit_in_the_endpoint_is_no_trouble(
    app: FastAPI, database: Database, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/")
    async def handler(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.opened)]
    ) -> StreamingResponse:
        tasks.configure(session=session)
        session.add(Person(name="ann"))
        tasks.add_task(greet, "ann")
        await session.commit()
        return StreamingResponse(iter(["text"]))

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: said)
    assert warnings(caplog) == []


@pytest.mark.parametrize("outer", [True, False])
async def test_a_session_within_the_transaction_of_its_connection_decides_nothing(
    app: FastAPI, database: Database, caplog: pytest.LogCaptureFixture, outer: bool
) -> None:
    with database.engine.connect() as connection:
        transaction = connection.begin() if outer else None
        with Session(connection) as session:
            session.add(Person(name="ann"))
            await greet.options(session=session).enqueue("ann")
            session.commit()
        if transaction is not None:
            transaction.rollback()
    told = [record.message for record in caplog.records if "whose own transaction goes on" in record.message]
    assert len(told) == int(outer)
    assert all("'greet'" in line for line in told)
