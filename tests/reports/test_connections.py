"""Reports on middleware and connections: what waits for a task, and what ends one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.middleware.base import BaseHTTPMiddleware

from afterwards import Afterwards, BackgroundTasks, State, task
from face.diary import fail, note, plain
from face.diary import said as the_diary
from face.serving import finished, records, serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

go = threading.Event()
traces: list[int] = []


@pytest.fixture(autouse=True)
def closed() -> None:
    go.clear()
    traces.clear()


@task
async def wait_on_the_loop() -> str:
    await until(go.is_set)
    the_diary.append("ended")
    return "ended"


@task
def wait_in_a_thread() -> str:
    assert go.wait(10)
    the_diary.append("ended")
    return "ended"


@task
async def block_the_loop() -> None:
    assert go.wait(10), "nobody has answered the client"
    the_diary.append("ended")


async def passed_through(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app


def middleware(app: FastAPI) -> None:
    for _ in range(2):
        app.add_middleware(BaseHTTPMiddleware, dispatch=passed_through)


WAITING = pytest.mark.parametrize("function", [wait_on_the_loop, wait_in_a_thread], ids=lambda one: one.name)


@WAITING
async def test_the_next_request_of_a_connection_does_not_wait_for_a_task(
    app: FastAPI, said: list[str], function: Any
) -> None:
    """With a BaseHTTPMiddleware the next request of the same client waited until the task had ended.

    https://github.com/Kludex/starlette/issues/919
    """
    middleware(app)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(function)

    async with serving(app) as http:
        one = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=http.base_url, limits=one, trust_env=False) as client:
            for _ in range(3):
                assert (await client.get("/")).status_code == 200
            assert said == []
            go.set()
            await until(lambda: said == ["ended"] * 3)


@WAITING
async def test_a_client_that_closes_its_connection_cancels_no_task(
    app: FastAPI, said: list[str], function: Any
) -> None:
    """With a BaseHTTPMiddleware tasks were cancelled when the client closed its connection after the response.

    https://github.com/Kludex/starlette/issues/1438
    """
    middleware(app)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(function)

    async with serving(app) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
        [stored] = await until_async(lambda: records(app.state.tasks))
        handle = await app.state.tasks.get(stored.id)
        go.set()
        assert (await finished(handle)).state is State.SUCCEEDED
    assert said == ["ended"]


async def test_a_client_that_leaves_before_the_response_loses_no_accepted_task(app: FastAPI, said: list[str]) -> None:
    """Middleware cancelled the tasks of a request, too, when its client was gone.

    https://github.com/ITISFoundation/osparc-simcore/pull/7279
    """
    here = asyncio.Event()
    middleware(app)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "stored")
        tasks.add_task(plain, "plain")
        here.set()
        await until(go.is_set)

    async with serving(app) as http:
        _, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        await here.wait()
        writer.transport.abort()
        go.set()
        await until(lambda: sorted(said) == ["plain", "stored"])


class Slow:
    """Holds the last part of the first response back, as a client does that reads slowly."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.held, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def slowly(message: Any) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and scope.get("path") == "/slow":
                self.held.set()
                await self.release.wait()
                the_diary.append("sent")
            await send(message)

        await self.app(scope, receive, slowly)


async def test_no_task_begins_before_the_last_byte_is_sent(app: FastAPI, said: list[str]) -> None:
    """With a BaseHTTPMiddleware a task began while the response was still being sent to a slow client.

    https://github.com/Kludex/starlette/issues/3458
    """
    middleware(app)

    @app.get("/{speed}")
    async def handler(speed: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, speed)

    slow = Slow(app)
    async with serving(slow) as http:
        waiting = asyncio.create_task(http.get("/slow"))
        await slow.held.wait()
        assert (await http.get("/quick")).status_code == 200
        await until(lambda: said == ["quick"])
        slow.release.set()
        assert (await waiting).status_code == 200
        await until(lambda: said == ["quick", "sent", "slow"])


async def test_the_response_is_there_before_an_async_task_can_block_the_loop(app: FastAPI, said: list[str]) -> None:
    """An async task that never awaited kept the response from leaving until it had ended.

    https://github.com/fastapi/fastapi/issues/404
    """

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(block_the_loop)

    def ask(url: str) -> None:
        assert httpx.get(url, trust_env=False, timeout=5).status_code == 200
        go.set()

    async with serving(app) as http:
        await asyncio.to_thread(ask, str(http.base_url))
        await until(lambda: said == ["ended"])


async def broken(text: str) -> None:
    the_diary.append(text)
    raise ValueError(text)


@pytest.mark.parametrize("function", [fail, broken], ids=["stored", "plain"])
async def test_an_exception_handler_does_not_replace_what_a_task_raised(
    app: FastAPI, said: list[str], caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    """The application had a handler for what its task raised: the log told of a response that had begun already.

    https://github.com/fastapi/fastapi/issues/3589
    """

    @app.exception_handler(ValueError)
    async def handle(request: Request, error: ValueError) -> Response:
        the_diary.append("handled")
        return JSONResponse({}, status_code=500)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(function, "a lamp is broken")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until_async(lambda: failures(app))
        [failure] = await failures(app)
    assert (failure.type, failure.message) == ("ValueError", "a lamp is broken")
    assert said == ["a lamp is broken"]
    await until(lambda: "a lamp is broken" in caplog.text)  # the server logs a plain task's failure when it hears of it
    if function is fail:  # what plain tasks raise is logged as by FastAPI, so it is there with that, too
        assert "response already started" not in caplog.text


async def failures(app: FastAPI) -> list[Any]:
    return [failure for record in await records(app.state.tasks) for failure in record.failures]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_requests_span_ends_with_its_response_and_the_tasks_trace_is_the_same(
    app: FastAPI, said: list[str]
) -> None:
    """The span of a request lasted until its tasks had ended, or theirs hung below one that was closed already.

    https://github.com/open-telemetry/opentelemetry-python-contrib/issues/1684
    """
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

    @app.get("/things")
    async def handler(tasks: BackgroundTasks) -> None:
        traces.append(trace.get_current_span().get_span_context().trace_id)
        tasks.add_task(wait_and_look)

    try:
        async with serving(app) as http:
            assert (await http.get("/things")).status_code == 200
            await until(lambda: "GET /things" in [span.name for span in spans.get_finished_spans()])
            assert said == [], "the task has not ended"
            go.set()
            await until(lambda: said == ["looked"])
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
        provider.shutdown()
    assert traces[0] == traces[1] != 0


@task
async def wait_and_look() -> None:
    await until(go.is_set)
    traces.append(trace.get_current_span().get_span_context().trace_id)
    the_diary.append("looked")
