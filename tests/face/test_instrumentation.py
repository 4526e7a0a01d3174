"""Tools that put themselves round a whole application work beside an installation, whichever comes first."""

from pathlib import Path

import pytest

from face.processes import output

PROGRAM = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from afterwards import Afterwards, BackgroundTasks, task

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
app = FastAPI()

@task
async def note(text: str) -> None: ...

@app.post("/note")
async def add_note(background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(note, "hello").id

@app.post("/broken")
async def broken() -> None:
    raise ValueError("broken")

{first}
{second}

with TestClient(app, raise_server_exceptions=False) as client:
    id = client.post("/note").json()
    stored = client.portal.call(tasks.get, id)
    print("stored", stored.id == id, client.post("/broken").status_code)
print(*sorted({{span.name for span in exporter.get_finished_spans() if span.kind.name == "SERVER"}}), sep=", ")
"""

INSTALL = "tasks = Afterwards(app)"
INSTRUMENT = "FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)"


@pytest.mark.parametrize(("first", "second"), [(INSTALL, INSTRUMENT), (INSTRUMENT, INSTALL)])
def test_opentelemetrys_instrumentation_makes_its_spans(tmp_path: Path, first: str, second: str) -> None:
    said = output(PROGRAM.format(first=first, second=second), tmp_path)
    assert said.splitlines() == ["stored True 500", "POST /broken, POST /note"]
