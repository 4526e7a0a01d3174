"""Probes and Prometheus' metrics: what the routes of ``health_router`` answer."""

import asyncio
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from prometheus_client.parser import text_string_to_metric_families

from afterwards import Afterwards, task
from afterwards.core import verdict
from afterwards.core.errors import EngineUnavailable
from afterwards.core.verdict import EXTREME_LAG, SILENT_AFTER, Role, Vitals, liveness
from afterwards.web.exposition import Gauge, Sample, exposed
from face.serving import finished, serving, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(queue="mail")
async def work() -> None: ...


@task(queue="mail")
async def fail() -> None:
    raise ValueError("no")


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = tasks = Afterwards(app, url)
    app.include_router(tasks.health_router())
    return app


async def test_a_server_that_works_is_healthy_and_ready(app: FastAPI) -> None:
    async with serving(app) as http:
        for path, detail in (("/healthz", "the worker runs"), ("/readyz", "the worker runs, and the store answers")):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()) == (200, {"healthy": True, "detail": detail})
            assert answer.headers["cache-control"] == "no-store"


async def test_a_worker_that_does_not_claim_is_not_healthy(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "SILENT_AFTER", timedelta(seconds=0.2))
    tasks, hang = app.state.tasks, asyncio.Event()
    engine = await tasks.client.open()
    monkeypatch.setattr(engine, "claim", lambda claim: hang.wait())
    async with serving(app) as http:

        async def unwell() -> Any:
            answer = await http.get("/healthz")
            return answer if answer.status_code == 503 else None

        answer = await until_async(unwell)
        assert answer.json()["healthy"] is False
        assert answer.json()["detail"].startswith("the worker has not claimed tasks for")
        assert (await http.get("/readyz")).status_code == 503
        monkeypatch.undo()
        hang.set()
    await tasks.client.close()


async def test_a_store_that_is_away_is_no_reason_for_a_restart(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(app) as http:
        engine = await app.state.tasks.client.open()

        async def away(*_: object, **__: object) -> None:
            raise EngineUnavailable("postgresql://db.internal/secret does not answer")

        for method in ("find", "stats", "claim"):
            monkeypatch.setattr(engine, method, away)
        assert (await http.get("/healthz")).status_code == 200
        for path in ("/readyz", "/metrics"):
            answer = await http.get(path)
            assert answer.status_code == 503
            assert "the store does not answer" in answer.text and "internal" not in answer.text
        monkeypatch.undo()


async def test_a_server_without_a_worker_is_healthy(url: str) -> None:
    app = FastAPI()
    app.include_router(Afterwards(app, url, worker=False).health_router())
    async with serving(app) as http:
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.json()["detail"]) == (200, "no worker runs in this process")


async def test_the_routes_can_be_guarded_and_are_documented(url: str) -> None:
    def known(x_probe: Annotated[str, Header()] = "") -> None:
        if x_probe != "ours":
            raise HTTPException(401)

    app = FastAPI()
    tasks = Afterwards(app, url)
    app.include_router(tasks.health_router(), prefix="/ops", dependencies=[Depends(known)])
    async with serving(app) as http:
        for path in ("/ops/healthz", "/ops/readyz", "/ops/metrics"):
            assert (await http.get(path)).status_code == 401
            assert (await http.get(path, headers={"x-probe": "ours"})).status_code == 200
        described = (await http.get("/openapi.json")).json()["paths"]["/ops/healthz"]["get"]["responses"]
        assert set(described) >= {"200", "503"}


async def test_prometheus_reads_the_counts_of_the_store(app: FastAPI) -> None:
    tasks = app.state.tasks
    async with serving(app) as http:
        await finished(await work.enqueue())
        await finished(await fail.enqueue())
        await tasks.pause(queue="mail")
        await work.enqueue()

        async def read() -> dict[tuple[str, ...], float]:
            answer = await http.get("/metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            return {
                (
                    sample.name,
                    *(text for name, text in sorted(sample.labels.items()) if name not in ("pid", "worker")),
                ): (sample.value)
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
            }

        async def worker_seen() -> bool:
            return (await read())["afterwards_workers",] == 1

        await until_async(worker_seen)
        found = await read()
    states = {state: found["afterwards_tasks", "mail", state] for state in ("queued", "running", "succeeded", "failed")}
    assert states == {"queued": 1, "running": 0, "succeeded": 1, "failed": 1}
    assert (
        found["afterwards_attempts_ended", "succeeded", "1h"] == found["afterwards_attempts_ended", "failed", "1h"] == 1
    )
    assert found["afterwards_attempts_ended", "retried", "5m"] == 0
    assert found["afterwards_worker_slots",] == 20
    assert found["afterwards_paused", "queue", "mail"] == 1
    assert found["afterwards_oldest_task_age_seconds",] >= 0


def test_labels_with_any_text_are_read_again() -> None:
    text = 'a "b" \\ c\nd'
    [family] = text_string_to_metric_families(
        exposed([Gauge("tasks", "With \\ and\na line.", [Sample(1.5, {"name": text})])])
    )
    [sample] = family.samples
    assert (sample.labels, sample.value, family.type) == ({"name": text}, 1.5, "gauge")
    assert family.documentation == "With \\ and\na line."


@pytest.mark.parametrize(
    ("vitals", "well"),
    [
        (Vitals(), True),
        (Vitals(trouble="it cannot claim tasks"), False),
        (Vitals(silent=SILENT_AFTER), True),
        (Vitals(silent=SILENT_AFTER * 1.1), False),
        (Vitals(lag=EXTREME_LAG), True),
        (Vitals(lag=EXTREME_LAG * 1.1), False),
    ],
)
def test_the_rule_of_liveness(vitals: Vitals, well: bool) -> None:
    assert liveness(vitals).well is well


@pytest.mark.parametrize(
    ("role", "runs", "neglects"),
    [
        (Role.WORKER, "the worker runs", "the worker has not claimed tasks for 61 s"),
        (Role.DISPATCHER, "the dispatcher runs", "the dispatcher has not sent tasks for 61 s"),
    ],
)
def test_a_probe_says_what_the_process_is(role: Role, runs: str, neglects: str) -> None:
    assert liveness(Vitals(role=role)).reason == runs
    assert liveness(Vitals(role=role, silent=timedelta(seconds=61))).reason == neglects
