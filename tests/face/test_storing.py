"""When a request's tasks are stored: after the handler, before the response, all of them or none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.background import BackgroundTask

from afterwards import Afterwards, BackgroundTasks, NotStored, UnknownTask, engines
from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.core.task import NewTask, Task
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine
from face.diary import note, note_in_thread, plain, take
from face.diary import said as the_diary
from face.serving import serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class Witness(MemoryEngine):
    """Says when it stores, and fails when it is told to."""

    down = False
    refused = 0
    error: EngineError = EngineUnavailable("out of order")

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        if self.down:
            self.refused += 1
            raise self.error
        the_diary.append(f"stored {len(tasks)}")
        return await super().enqueue(tasks, claim=claim)


@pytest.fixture
def witness(said: list[str]) -> Iterator[Witness]:
    engine = Witness()
    with engines.replaced(lambda url: engine):
        yield engine


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


def watched(app: FastAPI) -> Any:
    """The application, with a note in the diary of when its response starts and ends."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                the_diary.append(f"start {message['status']}")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                the_diary.append("end")

        await app(scope, receive, sending)

    return outer


async def test_they_are_stored_between_the_handler_and_the_response(
    app: FastAPI, witness: Witness, said: list[str]
) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")
        said.append("handled")

    async with serving(watched(app)) as http:
        await http.get("/")
        await until(lambda: "run" in said)
    assert said == ["handled", "stored 1", "start 200", "end", "run"]


def behind_the_handler(app: FastAPI, add: Callable[[BackgroundTasks], Awaitable[None]]) -> None:
    """Have middleware add to the injected tasks when the handler has returned, before the response begins."""

    @app.get("/")
    async def handler(request: Request, tasks: BackgroundTasks) -> None:
        request.state.tasks = tasks

    @app.middleware("http")
    async def middleware(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        await add(request.state.tasks)
        return response


async def test_what_middleware_adds_to_the_injected_ones_is_stored_before_the_response(
    app: FastAPI, witness: Witness, said: list[str]
) -> None:
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")

    behind_the_handler(app, add)
    async with serving(watched(app)) as http:
        await http.get("/")
        await until(lambda: "run" in said)
    assert said == ["stored 1", "start 200", "end", "run"]


@pytest.mark.parametrize(("back", "status"), [(False, 503), (True, 200)])
async def test_what_middleware_adds_late_is_tried_again_before_the_response_or_refuses_it(
    app: FastAPI, witness: Witness, said: list[str], back: bool, status: int
) -> None:
    async def add(tasks: BackgroundTasks) -> None:
        witness.down = True
        tasks.add_task(note, "run")
        await until(lambda: witness.refused)
        witness.down = not back

    behind_the_handler(app, add)
    async with serving(watched(app)) as http:
        assert (await http.get("/")).status_code == status
        witness.down = False
        if back:
            await until(lambda: "run" in said)
    assert said == (["stored 1", "start 200", "end", "run"] if back else ["start 503", "end"])


async def test_what_middleware_puts_into_the_list_by_hand_is_stored_before_the_response(
    app: FastAPI, witness: Witness, said: list[str]
) -> None:
    async def add(tasks: BackgroundTasks) -> None:
        tasks.tasks.append(BackgroundTask(note, "run"))

    behind_the_handler(app, add)
    async with serving(watched(app)) as http:
        await http.get("/")
        await until(lambda: "run" in said)
    assert said == ["stored 1", "start 200", "end", "run"]


async def test_what_middleware_adds_to_its_own_ones_is_stored_before_the_response(
    app: FastAPI, witness: Witness, said: list[str]
) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "first")

    @app.middleware("http")
    async def middleware(request: Request, call_next: Any) -> Response:
        own = BackgroundTasks()
        response: Response = await call_next(request)
        own.add_task(note, "second")
        return response

    async with serving(watched(app)) as http:
        await http.get("/")
        await until(lambda: "second" in said)
    assert said == ["stored 1", "stored 1", "start 200", "end", "first", "second"]


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("hello"),
        RedirectResponse("/elsewhere"),
        FileResponse(__file__),
        StreamingResponse(iter([b"one", b"two"])),
    ],
    ids=lambda response: type(response).__name__,
)
async def test_they_are_stored_before_any_kind_of_response(
    app: FastAPI, witness: Witness, said: list[str], response: Response
) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> Response:
        tasks.add_task(note, "run")
        return response

    async with serving(watched(app)) as http:
        await http.get("/")
        await until(lambda: "run" in said)
    assert said == ["stored 1", f"start {response.status_code}", "end", "run"]


async def test_a_streaming_endpoint_stores_what_its_dependencies_added_before_its_first_byte(
    app: FastAPI, witness: Witness, said: list[str]
) -> None:
    async def dependency(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "early")

    @app.get("/", dependencies=[Depends(dependency)])
    async def handler() -> StreamingResponse:
        return StreamingResponse(iter([b"one"]))

    async with serving(watched(app)) as http:
        await http.get("/")
        await until(lambda: "early" in said)
    assert said == ["stored 1", "start 200", "end", "early"]


async def test_all_of_a_request_are_stored_in_one_transaction(app: FastAPI, witness: Witness, said: list[str]) -> None:
    async def dependency(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "0")

    @app.get("/", dependencies=[Depends(dependency)])
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "1")
        tasks.add_task(plain, "plain")
        tasks.add_task(note_in_thread, "2")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: "2" in said)
    assert said == ["stored 3", "plain", "0", "1", "2"]


async def test_a_request_without_tasks_writes_nothing(app: FastAPI, witness: Witness, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None: ...

    async with serving(app) as http:
        await http.get("/")
    assert said == []


async def test_a_store_that_fails_is_answered_with_503(
    app: FastAPI, witness: Witness, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")
        tasks.add_task(plain, "never")

    async with serving(watched(app)) as http:
        witness.down = True
        response = await http.get("/")
        witness.down = False
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert said == ["start 503", "end"]
    assert [record.levelname for record in caplog.records if "could not be stored (note)" in record.message] == [
        "ERROR"
    ]


@pytest.mark.parametrize("error", [EngineUnavailable("out of order"), EngineError("damaged")])
@pytest.mark.parametrize("how", ["enqueue", "enqueue_sync", "flush", "add_task"])
async def test_however_a_handler_asks_a_store_that_fails_is_answered_with_503(
    app: FastAPI, witness: Witness, caplog: pytest.LogCaptureFixture, error: EngineError, how: str
) -> None:
    @app.get("/enqueue")
    async def enqueue() -> None:
        await note.enqueue("never")

    @app.get("/enqueue_sync")
    def enqueue_sync() -> None:
        note.enqueue_sync("never")

    @app.get("/flush")
    async def flush(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")
        await tasks.flush()

    @app.get("/add_task")
    async def add_task(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")

    async with serving(app) as http:
        witness.down, witness.error = True, error
        response = await http.get(f"/{how}")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert [record.levelname for record in caplog.records if str(error) in record.message] == ["ERROR"]


async def test_a_handler_may_survive_a_flush_that_fails(app: FastAPI, witness: Witness, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "run")
        witness.down = True
        try:
            await tasks.flush()
        except EngineUnavailable:
            witness.down = False
            return "tried"
        return "stored"

    async with serving(app) as http:
        assert (await http.get("/")).json() == "tried"
        await until(lambda: "run" in said)
    assert said == ["stored 1", "run"]


async def test_flush_stores_in_the_handler_and_starts_nothing(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        handle = tasks.add_task(note, "run")
        with pytest.raises(NotStored, match="flush"):
            await handle.status()
        await tasks.flush()
        assert not (await handle.status()).state.finished
        await asyncio.sleep(0.05)  # longer than a worker needs
        said.append("handled")
        return handle.id

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: "run" in said)
    assert said == ["handled", "run"]


async def test_what_is_added_after_a_flush_stays_in_order(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(take, 0.05, "first")
        await tasks.flush()
        tasks.add_task(note, "second")
        await tasks.flush()
        await tasks.flush()
        tasks.add_task(note, "third")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: "third" in said)
    assert said == ["first began", "first ended", "second", "third"]


async def test_what_was_flushed_runs_although_the_handler_raises(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "flushed")
        await tasks.flush()
        tasks.add_task(note, "never")
        raise RuntimeError("after the flush")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 500
        await until(lambda: "flushed" in said)
    assert said == ["flushed"]


async def test_a_wrong_argument_fails_in_the_handler(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        with pytest.raises(TypeError):
            tasks.add_task(note)  # type: ignore[call-overload]  # as at a direct call
        with pytest.raises(TypeError):
            tasks.add_task(note, "text", wrong=1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="text"):
            tasks.add_task(note, object())  # type: ignore[arg-type]
        tasks.add_task(note, "right")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said)
    assert said == ["right"]


async def test_what_a_stream_adds_is_stored_at_once(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            handle = tasks.add_task(note, "late")
            await until_async(lambda: stored(handle))
            said.append("stored while it streams")
            yield b"two"

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.get("/")).text == "onetwo"
        await until(lambda: "late" in said)
    assert said == ["stored while it streams", "late"]


async def test_what_a_stream_in_a_thread_adds_is_stored_when_add_task_returns(url: str, said: list[str]) -> None:
    app = FastAPI()
    installation = Afterwards(app, url)

    @app.get("/")
    def handler(tasks: BackgroundTasks) -> StreamingResponse:
        def body() -> Iterator[bytes]:
            yield b"one"
            handle = tasks.add_task(note, "late")
            assert asyncio.run(installation.client.get(handle.id)).name == "note"
            yield b"two"

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.get("/")).text == "onetwo"
        await until(lambda: said == ["late"])


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_what_the_exit_of_a_dependency_adds_runs(app: FastAPI, said: list[str], scope: Any) -> None:
    async def resource(tasks: BackgroundTasks) -> AsyncIterator[None]:
        yield
        tasks.add_task(note, "exit")

    @app.get("/")
    async def handler(resource: Annotated[None, Depends(resource, scope=scope)]) -> None: ...

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["exit"])


async def test_what_the_exit_of_a_sync_dependency_adds_runs(app: FastAPI, said: list[str]) -> None:
    def resource(tasks: BackgroundTasks) -> Iterator[None]:
        yield
        tasks.add_task(note, "exit")

    @app.get("/")
    def handler(resource: Annotated[None, Depends(resource)]) -> None: ...

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["exit"])


async def test_what_the_exit_of_a_dependency_adds_when_the_handler_raised_runs(app: FastAPI, said: list[str]) -> None:
    async def compensate(tasks: BackgroundTasks) -> AsyncIterator[None]:
        try:
            yield
        except LookupError:
            tasks.add_task(note, "compensated")
            raise

    @app.get("/")
    async def handler(tasks: BackgroundTasks, resource: Annotated[None, Depends(compensate)]) -> None:
        tasks.add_task(note, "never")
        raise LookupError

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 500
        await until(lambda: said)
    assert said == ["compensated"]


async def test_late_tasks_come_after_those_of_the_handler(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(take, 0.02, "early")

        async def body() -> AsyncIterator[bytes]:
            for number in range(3):
                tasks.add_task(note, f"late {number}")
                yield b"x"

        return StreamingResponse(body())

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: "late 2" in said)
    assert said == ["early began", "early ended", "late 0", "late 1", "late 2"]


@pytest.mark.parametrize("first", ["session", "tasks"])
@pytest.mark.parametrize("commits", [True, False])
async def test_a_session_that_closes_before_the_response_decides_whatever_the_order_of_parameters(
    app: FastAPI, witness: Witness, said: list[str], first: str, commits: bool
) -> None:
    async def session() -> AsyncIterator[None]:
        yield
        said.append("commit")
        if not commits:
            raise RuntimeError("the commit failed")

    in_function = Depends(session, scope="function")

    @app.get("/tasks")
    async def tasks_first(tasks: BackgroundTasks, session: Annotated[None, in_function]) -> None:
        tasks.add_task(note, "run")

    @app.get("/session")
    async def session_first(session: Annotated[None, in_function], tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")

    async with serving(app) as http:
        assert (await http.get(f"/{first}")).status_code == (200 if commits else 500)
        if commits:
            await until(lambda: "run" in said)
    assert said == (["commit", "stored 1", "run"] if commits else ["commit"])


async def test_a_late_task_that_cannot_be_stored_is_an_error_in_the_log_and_cuts_no_stream(
    app: FastAPI, witness: Witness, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            witness.down = True
            tasks.add_task(note, "lost")
            yield b"two"

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.get("/")).text == "onetwo"
        await until(lambda: [record for record in caplog.records if "they are lost" in record.message])
    assert said == []


async def test_a_request_that_is_cancelled_while_it_stores_loses_nothing(app: FastAPI, said: list[str]) -> None:
    """A client that goes away cancels, behind ``@app.middleware``, what runs for it."""

    @app.middleware("http")
    async def middleware(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    @app.get("/{number}")
    async def handler(number: int, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, str(number))
        said.append(f"handled {number}")

    async with serving(app) as http:
        for number in range(20):
            asking = asyncio.create_task(http.get(f"/{number}"))
            await until(partial(said.__contains__, f"handled {number}"))
            asking.cancel()
            await asyncio.wait([asking])
        await until(lambda: {str(number) for number in range(20)} <= set(said))


async def stored(handle: Any) -> bool:
    try:
        await handle.status()
    except (NotStored, UnknownTask):
        return False
    return True
