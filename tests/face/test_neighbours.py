"""What else attaches to an application: OpenTelemetry's instrumentation, and event loops that are not asyncio's."""

import logging
from collections.abc import Callable
from typing import Any

import fastapi
import httpx
import pytest
import trio
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from afterwards import Afterwards, BackgroundTasks
from afterwards.core.errors import NotAsyncio
from face.diary import note
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("first", ["installed", "instrumented"])
@pytest.mark.parametrize("fails", [False, True])
async def test_opentelemetry_instruments_the_application_in_either_order(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture, first: str, fails: bool
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = FastAPI()
    attach: list[Callable[[], Any]] = [
        lambda: Afterwards(app, url),
        lambda: FastAPIInstrumentor.instrument_app(app, tracer_provider=provider),
    ]
    for step in attach if first == "installed" else reversed(attach):
        step()

    @app.get("/things")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")
        await tasks.flush()
        if fails:
            raise ValueError("on purpose")

    async with serving(app) as http:
        assert (await http.get("/things")).status_code == (500 if fails else 200)
        await until(lambda: said == ["run"])
    assert "GET /things" in [span.name for span in spans.get_finished_spans()]
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR and "Skipping" in r.message]
    FastAPIInstrumentor.uninstrument_app(app)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("everywhere", [False, True])
async def test_ending_opentelemetrys_instrumentation_leaves_tasks_durable(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture, everywhere: bool
) -> None:
    if everywhere:
        FastAPIInstrumentor().instrument()
    app = fastapi.FastAPI()
    if not everywhere:
        FastAPIInstrumentor.instrument_app(app)
    Afterwards(app, url)
    added: list[object] = []

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        added.append(tasks.add_task(note, "run"))

    if everywhere:
        FastAPIInstrumentor().uninstrument()
    else:
        FastAPIInstrumentor.uninstrument_app(app)
    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["run"])
    assert added != [None]
    assert "afterwards has" not in caplog.text.lower()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_boundary_that_is_dropped_while_the_application_serves_is_put_back(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    FastAPIInstrumentor.instrument_app(app)
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")

    async with serving(app) as http:
        FastAPIInstrumentor.uninstrument_app(app)
        assert (await http.get("/")).status_code == 503
        assert "put itself back" in caplog.text
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["run"])


async def test_a_build_function_that_is_restored_is_wrapped_again_where_nothing_is_built_yet(
    url: str, said: list[str]
) -> None:
    app = FastAPI()
    saved = app.build_middleware_stack
    Afterwards(app, url)
    app.build_middleware_stack = saved  # type: ignore[method-assign]

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        assert tasks.add_task(note, "run") is not None

    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["run"])


@pytest.mark.parametrize("lifespan", [True, False])
def test_trio_is_refused_with_what_is_needed(url: str, lifespan: bool) -> None:
    app = FastAPI()
    Afterwards(app, url)
    client = TestClient(app, backend="trio")
    with pytest.raises((NotAsyncio, BaseExceptionGroup)) as raised:
        if lifespan:
            with client:
                pass
        else:
            client.get("/openapi.json")
    found = raised.value
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert "asyncio" in str(found)
    assert "Trio" in str(found)


def test_trio_is_refused_where_nothing_serves(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    async def ask() -> None:
        with pytest.raises(NotAsyncio):
            await tasks.client.open()

    trio.run(ask)
