"""Spans and metrics by OpenTelemetry's messaging conventions, with the real SDK, in a process of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from afterwards.core.call_context import trace_id_of, with_trace, written_context
from face.processes import output

SETUP = """
import asyncio, json, sys
from typing import Annotated
from fastapi import FastAPI
import httpx
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from afterwards import Afterwards, BackgroundTasks, Retry, Snooze, task
from afterwards.core.errors import EngineUnavailable

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))

app = FastAPI()
tasks = Afterwards(app)

def told(span):
    context = lambda one: one and [format(one.trace_id, "032x"), format(one.span_id, "016x")]
    return {
        "name": span.name, "kind": span.kind.name, "context": context(span.context), "parent": context(span.parent),
        "links": [context(link.context) for link in span.links], "attributes": dict(span.attributes),
        "status": span.status.status_code.name, "text": str(span.to_json()),
    }

def measured():
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [
                    {"value": getattr(p, "value", None) or getattr(p, "count", None), "attributes": dict(p.attributes)}
                    for p in metric.data.data_points
                ]
    return found

def tell(**more):
    spans = [told(span) for span in exporter.get_finished_spans()]
    print("TOLD" + json.dumps({"spans": spans, "metrics": measured(), **more}))

def run(main):
    async def all_of_it():
        async with app.router.lifespan_context(app):
            more = await main()
        tell(**(more or {}))
    asyncio.run(all_of_it())

async def ended(*handles):
    async with asyncio.timeout(60):
        for handle in handles:
            while not (await handle.status()).state.finished:
                await asyncio.sleep(0.01)
"""


def told(program: str, folder: Path) -> dict[str, Any]:
    said = output(SETUP + program, folder)
    [line] = [line.removeprefix("TOLD") for line in said.splitlines() if line.startswith("TOLD")]
    told: dict[str, Any] = json.loads(line)
    return told


def test_an_attempt_is_linked_to_the_span_in_which_its_task_was_stored(tmp_path: Path) -> None:
    found = told(
        """
@task(queue="mail")
async def send(email: str) -> str:
    with trace.get_tracer("shop").start_as_current_span("inside"):
        return "a result"

@app.post("/")
async def add(background_tasks: BackgroundTasks):
    background_tasks.add_task(send, "ada@example.org")
    return background_tasks.tasks[0].handle.id

async def main():
    with trace.get_tracer("shop").start_as_current_span("request") as span:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            id = (await http.post("/")).json()
    handle = await tasks.get(id)
    await ended(handle)
    return {"id": id, "trace": (await handle.status()).trace}

run(main)
""",
        tmp_path,
    )
    spans = {span["name"]: span for span in found["spans"]}
    send, process, inside = (spans[name] for name in ("send mail", "process mail", "inside"))
    assert (send["kind"], process["kind"]) == ("PRODUCER", "CONSUMER")
    around = [span["name"] for span in found["spans"] if span["context"] == send["parent"]]
    assert around and around[0] != "process mail", "a span of the request: newer FastAPI versions make one"
    assert process["links"] == [send["context"]]
    assert process["parent"] == send["context"], "so that one trace shows the request and its tasks"
    assert inside["parent"] == process["context"]
    assert found["trace"] == send["context"][0] == process["context"][0]
    common = {
        "messaging.system": "afterwards",
        "messaging.destination.name": "mail",
        "messaging.message.id": found["id"],
    }
    assert send["attributes"] == common | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "afterwards.task.name": "send",
    }
    assert process["attributes"] == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "afterwards.task.name": "send",
        "afterwards.task.attempt": 1,
    }
    everything = json.dumps(found)
    assert "ada@example" not in everything and "a result" not in everything


def test_failures_name_their_error_and_retries_have_spans_of_their_own(tmp_path: Path) -> None:
    found = told(
        """
class NoPaper(Exception): ...

@task(retries=Retry(1, wait=0))
async def fail(password: str) -> None:
    raise NoPaper(f"none for {password}")

async def main():
    handle = await fail.enqueue("correct-horse-battery")
    await ended(handle)

run(main)
""",
        tmp_path,
    )
    attempts = [span for span in found["spans"] if span["name"] == "process default"]
    assert [span["attributes"]["afterwards.task.attempt"] for span in attempts] == [1, 2]
    assert {span["attributes"]["error.type"] for span in attempts} == {"__main__.NoPaper"}
    assert {span["status"] for span in attempts} == {"ERROR"}
    [sent] = [span for span in found["spans"] if span["name"] == "send default"]
    assert [span["links"] for span in attempts] == [[sent["context"]]] * 2
    assert "correct-horse" not in json.dumps(found)
    [consumed] = found["metrics"]["messaging.client.consumed.messages"]
    assert (consumed["value"], consumed["attributes"]["error.type"]) == (2, "__main__.NoPaper")


def test_what_is_sent_and_run_is_measured(tmp_path: Path) -> None:
    found = told(
        """
@task(queue="mail")
async def one() -> None: ...

@task
def other() -> None: ...

async def main():
    handles = await tasks.enqueue_many([one.call(), one.call(), other.call()])
    await ended(*handles)

run(main)
""",
        tmp_path,
    )
    [send] = [span for span in found["spans"] if span["kind"] == "PRODUCER"]
    assert send["name"] == "send" and send["attributes"]["messaging.batch.message_count"] == 3
    sent = found["metrics"]["messaging.client.sent.messages"]
    assert {(p["attributes"]["messaging.destination.name"], p["value"]) for p in sent} == {("mail", 2), ("default", 1)}
    for name in ("messaging.client.consumed.messages", "messaging.process.duration"):
        points = found["metrics"][name]
        assert {(p["attributes"]["afterwards.task.name"], p["value"]) for p in points} == {("one", 2), ("other", 1)}


def test_a_task_without_a_caller_that_traces_has_a_trace_of_its_own(tmp_path: Path) -> None:
    """The worker may have started within a span, as with the first request where nothing runs the lifespan."""
    found = told(
        """
@task
async def sweep() -> None: ...

async def main():
    engine = await tasks.client.open()
    from afterwards.core.task import NewTask
    new = NewTask(id=tasks.client.new_id(), name="sweep", arguments="{}")
    await engine.enqueue([new])
    await ended(await tasks.get(new.id))

with trace.get_tracer("shop").start_as_current_span("starting"):
    run(main)
""",
        tmp_path,
    )
    [process] = [span for span in found["spans"] if span["name"] == "process default"]
    assert (process["parent"], process["links"]) == (None, [])


def test_a_store_that_cannot_be_reached_is_an_error_of_the_sending_span(tmp_path: Path) -> None:
    found = told(
        """
@task
async def work() -> None: ...

async def main():
    engine = await tasks.client.open()
    async def away(*_, **__):
        raise EngineUnavailable("away")
    engine.enqueue, before = away, engine.enqueue
    try:
        await work.enqueue()
    except EngineUnavailable:
        pass
    engine.enqueue = before

run(main)
""",
        tmp_path,
    )
    [send] = found["spans"]
    assert (send["status"], send["attributes"]["error.type"]) == ("ERROR", "afterwards.core.errors.EngineUnavailable")
    [sent] = found["metrics"]["messaging.client.sent.messages"]
    assert sent["attributes"]["error.type"] == "afterwards.core.errors.EngineUnavailable"


@pytest.mark.parametrize("error", ["SystemExit", "GeneratorExit", "asyncio.CancelledError"])
def test_whatever_an_instrument_or_a_sampler_raises_the_task_has_its_end(tmp_path: Path, error: str) -> None:
    said = output(
        SETUP
        + f"""
app = FastAPI()
tasks = Afterwards(app)

class Broken:
    def __getattr__(self, name):
        raise {error}

class BrokenProvider(metrics.MeterProvider):
    def get_meter(self, *args, **kwargs):
        return Broken()

class BrokenTracers(trace.TracerProvider):
    def get_tracer(self, *args, **kwargs):
        return Broken()

metrics._internal._METER_PROVIDER = BrokenProvider()
trace._TRACER_PROVIDER = BrokenTracers()

@task
async def work() -> str:
    return "done"

async def main() -> None:
    async with app.router.lifespan_context(app):
        print("RESULT", await (await work.enqueue()).result(timeout=20), tasks.healthy)

asyncio.run(main())
""",
        tmp_path,
    )
    assert "RESULT done True" in said


def test_without_providers_nothing_is_stored_with_a_task(tmp_path: Path) -> None:
    said = output(
        """
        import asyncio
        from opentelemetry import metrics, trace  # loaded, and not set up
        from fastapi import FastAPI
        from afterwards import Afterwards, task

        app = FastAPI()
        tasks = Afterwards(app)

        @task
        async def work() -> None:
            print("current span is valid:", trace.get_current_span().get_span_context().is_valid)

        async def main() -> None:
            async with app.router.lifespan_context(app):
                handle = await work.enqueue()
                await handle.result(timeout=20)
                print("trace:", (await handle.status()).trace)

        asyncio.run(main())
        """,
        tmp_path,
    )
    assert "current span is valid: False" in said and "trace: None" in said


@pytest.mark.parametrize(
    "context",
    [
        None,
        "",
        "not json",
        "[1]",
        '{"trace": 1}',
        '{"trace": {"traceparent": 7}}',
        '{"trace": {"traceparent": "00-a-b"}}',
    ],
)
def test_a_context_without_a_trace_has_no_trace_id(context: str | None) -> None:
    assert trace_id_of(context) is None


def test_another_trace_leaves_the_variables() -> None:
    context = written_context({}, {"request_id": "r1"})
    header = f"00-{'a' * 32}-{'b' * 16}-01"
    assert with_trace(context, {}) == context
    after = with_trace(context, {"traceparent": header})
    assert trace_id_of(after) == "a" * 32
    assert json.loads(after or "")["variables"] == {"request_id": "r1"}
    assert written_context({}, {}) is None
