"""Tasks of a request that are stored with a session: when it commits, wherever that is, and only then."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
import sqlalchemy.event
import sqlalchemy.exc
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from afterwards import BackgroundTasks, NotStored, State, TaskHandle
from face.diary import plain
from face.diary import said as the_diary
from face.serving import serving, until
from sessions.sessions_support import Database, Person, greet, stored

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def is_stored(handle: TaskHandle[Any]) -> bool:
    try:
        await handle.status()
    except NotStored:
        return False
    return True


async def test_a_commit_in_the_handler(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            session.add(Person(name="ada"))
            tasks.add_task(greet, "ada")
            await session.commit()

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: said == ["hello ada"])
    assert database.people() == ["ada"]


async def test_on_the_same_database_the_commit_stores_the_task(same: FastAPI, database: Database) -> None:
    seen = []

    @same.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            handle = tasks.add_task(greet, "ada")
            await session.flush()
            seen.append((await is_stored(handle), len(await stored(same))))
            await session.commit()
            seen.append((await is_stored(handle), len(await stored(same))))
            [task] = await stored(same)
            assert task.state is State.SCHEDULED

    async with serving(same) as http:
        assert (await http.post("/")).status_code == 200
    assert seen == [(False, 0), (True, 1)]


@pytest.mark.parametrize("before", [[], ["before"]], ids=["the first one", "another one"])
async def test_a_task_that_is_added_in_the_flush_of_the_commit_is_in_its_transaction(
    same: FastAPI, database: Database, before: list[str]
) -> None:
    seen = []

    def count(connection: sqlalchemy.Connection) -> None:
        seen.append(connection.exec_driver_sql("SELECT count(*) FROM afterwards_tasks").scalar())

    @same.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        def add(mapper: object, connection: object, person: Person) -> None:
            tasks.add_task(greet.options(session=session), person.name)

        async with database.session() as session:
            for name in before:
                tasks.add_task(greet.options(session=session), name)
            session.add(Person(name="ada"))
            with listening(Person, "after_insert", add), listening(database.async_engine.sync_engine, "commit", count):
                await session.commit()

    async with serving(same) as http:
        assert (await http.post("/")).status_code == 200
    assert seen == [len(before) + 1]


@contextmanager
def listening(target: Any, name: str, heard: Callable[..., None]) -> Iterator[None]:
    sqlalchemy.event.listen(target, name, heard)
    yield
    sqlalchemy.event.remove(target, name, heard)


async def test_on_another_database_it_is_stored_between_the_commit_and_the_response(
    another: FastAPI, database: Database
) -> None:
    handles = []

    @another.post("/")
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        async with database.session() as session:
            tasks.configure(session=session)
            handles.append(tasks.add_task(greet, "ada"))
            await tasks.flush()
            assert not await is_stored(handles[0])
            await session.commit()
            assert not await is_stored(handles[0])

        async def body() -> AsyncIterator[str]:
            yield str(await is_stored(handles[0]))

        return StreamingResponse(body())

    async with serving(another) as http:
        assert (await http.post("/")).text == "True"


async def test_a_commit_in_the_exit_of_a_function_scoped_dependency(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    handles = []

    @app.post("/")
    async def handler(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.committed, scope="function")]
    ) -> StreamingResponse:
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        handles.append(tasks.add_task(greet, "ada"))

        async def body() -> AsyncIterator[str]:
            yield str(await is_stored(handles[0]))

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.post("/")).text == "True"
        await until(lambda: said == ["hello ada"])
    assert database.people() == ["ada"]


async def test_a_commit_in_the_exit_of_a_request_scoped_dependency(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    @app.post("/")
    async def handler(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.committed)]
    ) -> StreamingResponse:
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        await session.flush()
        handle = tasks.add_task(greet, "ada")

        async def body() -> AsyncIterator[str]:
            yield str(await is_stored(handle))

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.post("/")).text == "False"
        await until(lambda: said == ["hello ada"])
    assert database.people() == ["ada"]


async def test_a_task_that_is_committed_after_the_response_starts_when_the_request_has_ended(
    same: FastAPI, database: Database, said: list[str]
) -> None:
    async def slow_to_close() -> AsyncIterator[None]:
        yield
        for _ in range(20):
            await asyncio.sleep(0.01)
        the_diary.append("closed")

    @same.post("/")
    async def handler(
        tasks: BackgroundTasks,
        slow: Annotated[None, Depends(slow_to_close)],
        session: Annotated[AsyncSession, Depends(database.committed)],
    ) -> None:
        tasks.configure(session=session)
        tasks.add_task(greet, "ada")

    async with serving(same) as http:
        await http.post("/")
        await until(lambda: len(said) == 2)
    assert said == ["closed", "hello ada"]


async def test_tasks_that_a_stream_adds_wait_for_the_session_too(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    @app.post("/")
    async def handler(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.committed)]
    ) -> StreamingResponse:
        tasks.configure(session=session)

        async def body() -> AsyncIterator[str]:
            handle = tasks.add_task(greet, "ada")
            yield str(await is_stored(handle))

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.post("/")).text == "False"
        await until(lambda: said == ["hello ada"])


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_sync_session_and_a_sync_handler(app: FastAPI, database: Database, said: list[str], scope: Any) -> None:
    def committed() -> Any:
        with database.sync_session() as session:
            yield session
            session.commit()

    @app.post("/")
    def handler(tasks: BackgroundTasks, session: Annotated[Session, Depends(committed, scope=scope)]) -> None:
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        tasks.add_task(greet, "ada")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: said == ["hello ada"])
    assert database.people() == ["ada"]


async def test_a_sync_session_in_an_async_handler(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        with database.sync_session() as session:
            tasks.configure(session=session)
            session.add(Person(name="ada"))
            tasks.add_task(greet, "ada")
            session.commit()

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: said == ["hello ada"])
    assert database.people() == ["ada"]


async def test_what_is_rolled_back_is_not_stored_by_the_next_commit(
    app: FastAPI, database: Database, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    handles = []
    caplog.set_level(logging.INFO, "afterwards")

    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            session.add(Person(name="ada"))
            handles.append(tasks.add_task(greet, "ada"))
            await session.rollback()
            session.add(Person(name="bob"))
            handles.append(tasks.add_task(greet, "bob"))
            await session.commit()

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: said)
    assert (said, database.people()) == (["hello bob"], ["bob"])
    async with app.router.lifespan_context(app):
        assert [task.arguments for task in await stored(app)] == ['{"name":"bob"}']
    with pytest.raises(NotStored, match="was rolled back with the session"):
        await handles[0].status()
    assert "POST /: greet were rolled back with their session" in caplog.text


async def test_a_commit_that_fails_takes_the_tasks_with_it(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/{name}")
    async def handler(name: str, tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            session.add(Person(name=name))
            tasks.add_task(greet, name)
            try:
                await session.commit()
            except sqlalchemy.exc.IntegrityError:
                raise HTTPException(409) from None

    async with serving(app) as http:
        assert [(await http.post(path)).status_code for path in ("/ada", "/ada", "/bob")] == [200, 409, 200]
        await until(lambda: len(said) == 2)
        assert len(await stored(app)) == 2
    assert sorted(said) == ["hello ada", "hello bob"]


async def test_after_a_flush_that_failed_the_next_commit_stores_only_what_came_since(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            tasks.add_task(greet, "ada")
            session.add_all([Person(name="ada"), Person(name="ada")])
            with pytest.raises(sqlalchemy.exc.IntegrityError):
                await session.commit()
            await session.rollback()
            session.add(Person(name="bob"))
            tasks.add_task(greet, "bob")
            await session.commit()

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: said)
        assert len(await stored(app)) == 1
    assert (said, database.people()) == (["hello bob"], ["bob"])


@pytest.mark.parametrize("close", [True, False])
async def test_a_session_that_is_never_committed_is_told(
    app: FastAPI, database: Database, caplog: pytest.LogCaptureFixture, close: bool
) -> None:
    handles = []
    sessions = []

    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        session = database.session()
        sessions.append(session)
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        handles.append(tasks.add_task(greet, "ada"))
        await session.flush()
        if close:
            await session.close()

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: "never committed" in caplog.text)
        await sessions[0].commit()
        await sessions[0].close()
        assert await stored(app) == []
    message = "POST /: greet were added with a session that was never committed: they are not stored"
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in told if "is sent before" not in line] == [message]  # the other one is told once a function
    with pytest.raises(NotStored, match="without a commit" if close else "ended before"):
        await handles[0].status()


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_handler_that_raises_stores_nothing_even_if_an_exit_commits(
    app: FastAPI, database: Database, caplog: pytest.LogCaptureFixture, scope: Any
) -> None:
    @app.post("/")
    async def handler(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.committed_always, scope=scope)]
    ) -> None:
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        tasks.add_task(greet, "ada")
        raise HTTPException(418)

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 418
        await until(database.people)
        assert await stored(app) == []
    assert "greet" not in caplog.text


async def test_what_an_exit_adds_after_the_handler_has_raised_is_not_stored_either(
    app: FastAPI, database: Database
) -> None:
    async def adding(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(database.committed_always)]
    ) -> AsyncIterator[None]:
        tasks.configure(session=session)
        session.add(Person(name="ada"))
        try:
            yield
        finally:
            tasks.add_task(greet, "ada")

    @app.post("/")
    async def handler(added: Annotated[None, Depends(adding, scope="function")]) -> None:
        raise HTTPException(418)

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 418
        await until(database.people)
        assert await stored(app) == []


async def test_what_was_committed_before_the_handler_raises_runs(
    same: FastAPI, database: Database, said: list[str]
) -> None:
    @same.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            session.add(Person(name="ada"))
            tasks.add_task(greet, "ada")
            await session.commit()
        raise HTTPException(418)

    async with serving(same) as http:
        assert (await http.post("/")).status_code == 418
        await until(lambda: said == ["hello ada"])


async def test_on_another_database_a_handler_that_raises_after_its_commit_stores_nothing(
    another: FastAPI, database: Database
) -> None:
    @another.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            tasks.add_task(greet, "ada")
            await session.commit()
        raise HTTPException(418)

    async with serving(another) as http:
        assert (await http.post("/")).status_code == 418
        assert await stored(another) == []


async def test_two_sessions_are_decided_apart(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as one, database.session() as two:
            tasks.add_task(greet.options(session=one), "one")
            tasks.add_task(greet.options(session=two), "two")
            await one.rollback()
            one.add(Person(name="one"))
            await one.rollback()
            await two.commit()

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: said)
        assert len(await stored(app)) == 1
    assert said == ["hello two"]


async def test_the_order_is_kept_across_commits(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(greet, "first")
        await tasks.flush()
        async with database.session() as session:
            for name in ("ada", "bob"):
                tasks.configure(session=session)
                tasks.add_task(greet, name)
                tasks.add_task(greet, f"{name} again")
                await session.commit()
        tasks.configure(session=None)
        tasks.add_task(greet, "last")

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: len(said) == 6)
        tasks = await stored(app)
        assert [task.after for task in tasks] == [None, *(task.id for task in tasks[:-1])]
    assert said == [f"hello {name}" for name in ("first", "ada", "ada again", "bob", "bob again", "last")]


async def test_a_rolled_back_task_is_no_link_of_the_chain(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            for name, end in (("ada", session.commit), ("eve", session.rollback), ("bob", session.commit)):
                session.add(Person(name=name))
                tasks.add_task(greet, name)
                await end()

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: len(said) == 2)
        first, second = await stored(app)
        assert (first.after, second.after) == (None, first.id)


async def test_without_order_they_are_independent(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session, ordered=False)
            tasks.add_task(greet, "ada")
            tasks.add_task(greet, "bob")
            await session.commit()

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: len(said) == 2)
        assert [task.after for task in await stored(app)] == [None, None]


async def test_a_delay_counts_from_the_commit(app: FastAPI, database: Database) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            tasks.add_task(greet.options(delay=3600), "ada")
            await session.commit()

    async with serving(app) as http:
        await http.post("/")
        [task] = await stored(app)
        assert task.run_at is not None
        assert (task.state, (task.run_at - task.created_at).total_seconds()) == (State.SCHEDULED, 3600)


async def test_one_call_leaves_the_session_of_the_request(app: FastAPI, database: Database, said: list[str]) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            session.add(Person(name="ada"))
            tasks.add_task(greet.options(session=None), "bob")
            tasks.add_task(greet, "ada")
            await session.rollback()

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: said)
        assert len(await stored(app)) == 1
    assert said == ["hello bob"]


async def test_plain_functions_have_nothing_to_do_with_the_session(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            tasks.add_task(plain, "ran")
            await session.rollback()

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: said == ["ran"])


@pytest.mark.parametrize("outer", ["commit", "rollback"])
@pytest.mark.parametrize("inner", ["commit", "rollback"])
async def test_savepoints(app: FastAPI, database: Database, said: list[str], inner: str, outer: str) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            session.add(Person(name="outside"))
            tasks.add_task(greet, "outside")
            savepoint = await session.begin_nested()
            session.add(Person(name="inside"))
            tasks.add_task(greet, "inside")
            await getattr(savepoint, inner)()
            tasks.add_task(greet, "behind")
            assert await stored(app) == []
            await getattr(session, outer)()
        tasks.configure(session=None)
        tasks.add_task(greet, "end")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: "hello end" in said)
    kept = [] if outer == "rollback" else ["outside", *(["inside"] if inner == "commit" else []), "behind"]
    assert said == [f"hello {name}" for name in [*kept, "end"]]
    assert database.people() == sorted(name for name in kept if name != "behind")


async def test_a_savepoint_that_was_released_is_rolled_back_with_the_one_around_it(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            tasks.configure(session=session)
            tasks.add_task(greet, "outside")
            around = await session.begin_nested()
            async with session.begin_nested():
                session.add(Person(name="inside"))
                tasks.add_task(greet, "inside")
            await around.rollback()
            await session.commit()

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: said)
        assert len(await stored(app)) == 1
    assert (said, database.people()) == (["hello outside"], [])


async def test_a_savepoint_left_open_commits_with_the_transaction(
    app: FastAPI, database: Database, said: list[str]
) -> None:
    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session, session.begin():
            tasks.configure(session=session)
            session.begin_nested()
            await session.begin_nested()
            tasks.add_task(greet, "ada")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: said == ["hello ada"])


async def test_what_cannot_be_inserted_fails_the_commit(same: FastAPI, database: Database, said: list[str]) -> None:
    @same.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        async with database.session() as session:
            await session.execute(
                sqlalchemy.text(
                    "CREATE TRIGGER no BEFORE INSERT ON afterwards_tasks BEGIN SELECT raise(FAIL, 'no'); END"
                )
            )
            await session.commit()
            tasks.configure(session=session)
            session.add(Person(name="ada"))
            tasks.add_task(greet, "ada")
            await session.commit()

    async with serving(same) as http:
        assert (await http.post("/")).status_code == 500
        assert await stored(same) == []
    assert database.people() == []


async def test_what_needs_the_file_while_a_transaction_writes_is_refused_and_others_go_on(
    same: FastAPI, database: Database, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @same.post("/")
    async def handler() -> None:
        async with database.session() as session:
            session.add(Person(name="ada"))
            await session.flush()
            await greet.enqueue("ada")

    @same.get("/")
    async def other() -> str:
        return "here"

    async with serving(same) as http:
        asking = asyncio.ensure_future(http.post("/"))
        answers = 0
        while not asking.done():
            assert (await http.get("/")).json() == "here"
            answers += 1
            await asyncio.sleep(0.05)
        assert answers > 20
        assert (await asking).status_code == 503
        assert await stored(same) == []
    assert "this application has an open transaction" in caplog.text


def handlers_of(session: Session) -> Callable[[], int]:
    return lambda: len(list(session.dispatch.before_commit))


async def test_it_listens_once_to_a_session(same: FastAPI, database: Database, said: list[str]) -> None:
    with database.sync_session() as session:

        @same.post("/{name}")
        async def handler(name: str, tasks: BackgroundTasks) -> None:
            tasks.configure(session=session)
            tasks.add_task(greet, name)
            tasks.add_task(greet, name)
            session.commit()
            session.info.clear()  # as the application may

        async with serving(same) as http:
            for name in ("ada", "bob", "eve"):
                await http.post(f"/{name}")
            await until(lambda: len(said) == 6)
            assert len(await stored(same)) == 6
        assert handlers_of(session)() == 1
