"""What surrounds a call surrounds its attempts, too: the trace, and the context variables that are on the list."""

import json
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from afterwards import Afterwards, BackgroundTasks, Retry, task
from afterwards.core.errors import UnstorableContext
from face.serving import an_engine, finished, records, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

request_id: ContextVar[str] = ContextVar("request_id")
tenant: ContextVar[Any] = ContextVar("tenant", default="nobody")
seen: list[Any] = []


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture(autouse=True)
def afresh(exporter: InMemorySpanExporter) -> Iterator[None]:
    seen.clear()
    exporter.clear()
    yield
    request_id.set("")


@task
async def look_around() -> None:
    seen.append((request_id.get("none"), tenant.get()))


@task
def look_around_in_thread() -> None:
    seen.append((request_id.get("none"), tenant.get()))


@task(retries=Retry(1, wait=0))
async def traced(fails: bool = False) -> None:
    seen.append(trace.get_current_span().get_span_context())
    with trace.get_tracer("test").start_as_current_span("inside"):
        if fails and len(seen) == 1:
            raise ValueError("no")


async def test_the_variables_on_the_list_are_those_of_the_request(tmp_path: Path) -> None:
    app = FastAPI()
    Afterwards(app, an_engine(tmp_path), propagate=[request_id])

    @app.post("/{id}")
    async def handler(id: str, background_tasks: BackgroundTasks) -> None:
        request_id.set(id)
        tenant.set("not on the list")
        background_tasks.add_task(look_around)
        background_tasks.add_task(look_around_in_thread)

    async with serving(app) as http:
        await http.post("/first")
        await http.post("/second")
        await until(lambda: len(seen) == 4)
    assert sorted(seen) == [("first", "nobody")] * 2 + [("second", "nobody")] * 2


async def test_without_a_list_no_variable_is_stored_with_a_task(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        request_id.set("mine")
        await finished(await look_around.enqueue())
        [record] = await records(tasks)
    assert json.loads(record.context or "")["variables"] == {}


async def test_a_variable_that_json_cannot_hold_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False, propagate=[tenant]) as tasks:
        token = tenant.set(object())
        try:
            with pytest.raises(UnstorableContext, match='"tenant" holds a value of type object'):
                await look_around.enqueue()
        finally:
            tenant.reset(token)
        assert await records(tasks) == []


async def test_a_trace_goes_on_in_each_attempt(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    async with working(an_engine(tmp_path)):
        with trace.get_tracer("test").start_as_current_span("request") as request:
            handle = await traced.enqueue(fails=True)
        await finished(handle)
    asked = request.get_span_context()
    assert [found.trace_id for found in seen] == [asked.trace_id] * 2
    spans = exporter.get_finished_spans()
    [sent] = [span for span in spans if span.name == "send default"]
    attempts = [span for span in spans if span.name == "process default"]
    assert [span.attributes["afterwards.task.attempt"] for span in attempts] == [1, 2]
    assert sent.parent.span_id == asked.span_id
    assert [span.parent.span_id for span in attempts] == [sent.context.span_id] * 2
    assert [span.status.status_code for span in attempts] == [trace.StatusCode.ERROR, trace.StatusCode.UNSET]
    assert attempts[0].attributes["messaging.message.id"] == handle.id
    assert {span.context.trace_id for span in spans if span.name == "inside"} == {asked.trace_id}


async def test_a_call_without_a_span_begins_a_trace(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    async with working(an_engine(tmp_path)):
        await finished(await look_around.enqueue())
    sent, attempt = exporter.get_finished_spans()
    assert (sent.parent, attempt.parent.span_id) == (None, sent.context.span_id)
