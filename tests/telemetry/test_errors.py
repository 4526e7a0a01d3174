"""Error trackers: Sentry's SDK needs nothing but its logging integration to see each final failure once."""

import json
from pathlib import Path
from typing import Any

import pytest

from face.processes import output

PROGRAM = """
import asyncio, json
import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

events = []

class Kept(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            events.append(event)

sentry_sdk.init(dsn="http://key@localhost/1", transport=Kept, {integrations})

from fastapi import FastAPI
from afterwards import Afterwards, Retry, task

app = FastAPI()
tasks = Afterwards(app)

@task
async def fail(order: int) -> None:
    raise ValueError("no paper")

@task(retries=Retry(2, wait=0))
def fail_three_times(order: int) -> None:
    raise ValueError("no ink")

@task(retries=Retry(1, wait=0))
async def fail_once(order: int) -> None:
    if not seen:
        seen.append(order)
        raise ValueError("try again")

seen = []

async def main() -> None:
    async with app.router.lifespan_context(app):
        handles = [await function.enqueue(1) for function in (fail, fail_three_times, fail_once)]
        async with asyncio.timeout(60):
            for handle in handles:
                while not (await handle.status()).state.finished:
                    await asyncio.sleep(0.01)
    sentry_sdk.flush()
    print("TOLD" + json.dumps([[handle.id for handle in handles], events], default=str))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "integrations",
    ["default_integrations=False, integrations=[LoggingIntegration()]", "max_breadcrumbs=100"],
    ids=["logging alone", "all by default"],
)
def test_sentry_gets_one_event_for_each_final_failure(tmp_path: Path, integrations: str) -> None:
    said = output(PROGRAM.replace("{integrations}", integrations), tmp_path)
    [line] = [line.removeprefix("TOLD") for line in said.splitlines() if line.startswith("TOLD")]
    ids, events = json.loads(line)
    found = {event["extra"]["task"]: event for event in events}
    assert len(events) == 2 and set(found) == set(ids[:2]), "the one that succeeded in the end is none"
    first, second = found[ids[0]], found[ids[1]]
    assert _raised(first) == ("ValueError", "no paper") and _raised(second) == ("ValueError", "no ink")
    assert _fields(first) == {"task": ids[0], "task_name": "fail", "attempt": 1, "state": "failed"}
    assert _fields(second) == {"task": ids[1], "task_name": "fail_three_times", "attempt": 3, "state": "failed"}
    assert first["logger"] == "afterwards.tasks"


def _raised(event: dict[str, Any]) -> tuple[str, str]:
    raised = event["exception"]["values"][-1]
    return raised["type"], raised["value"]


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event["extra"][name] for name in ("task", "task_name", "attempt", "state")}
