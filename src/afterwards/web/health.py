"""Routes for those who watch a server: ``/healthz`` and ``/readyz`` for probes, ``/metrics`` for Prometheus."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from afterwards import telemetry
from afterwards.client import probes
from afterwards.client.client import Client
from afterwards.core.claim import Paused
from afterwards.core.errors import EngineError
from afterwards.core.routing import LiveWorker
from afterwards.core.tallies import STEP, Tally, total
from afterwards.core.task import State
from afterwards.core.verdict import Verdict
from afterwards.engine import Engine, Stats
from afterwards.web.exposition import CONTENT_TYPE, Gauge, Sample, exposed
from afterwards.worker.live_processes import live_processes

WINDOWS = {"5m": timedelta(minutes=5), "1h": timedelta(hours=1)}
"""The spans until now in which ended attempts are counted, by their label."""


class HealthReport(BaseModel):
    """The answer to a probe: ``healthy`` with 200, or not with 503, and the reason."""

    healthy: bool
    detail: str


def router(client: Client) -> APIRouter:
    """Return the routes of one installation."""
    routes = APIRouter(tags=["health"])
    unwell: dict[int | str, dict[str, Any]] = {503: {"model": HealthReport, "description": "It does not work."}}

    @routes.get("/healthz", response_model=HealthReport, responses=unwell)
    async def healthz() -> JSONResponse:
        """Answer whether this process works. It fails if a restart would help."""
        return _answer(probes.live(client))

    @routes.get("/readyz", response_model=HealthReport, responses=unwell)
    async def readyz() -> JSONResponse:
        """Answer whether this process works, and its store answers."""
        return _answer(await probes.ready(client))

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Count the tasks and workers of the store, in Prometheus' text format."""
        try:
            return PlainTextResponse(await metrics_text(await client.open()), media_type=CONTENT_TYPE)
        except EngineError as error:
            telemetry.store_silent(error)
            return PlainTextResponse(f"# {probes.silent_store(error)}\n", 503, media_type=CONTENT_TYPE)

    return routes


async def metrics_text(engine: Engine) -> str:
    """Return the metrics of a store as Prometheus' text. All processes that share the store have the same ones."""
    stats = await engine.stats()
    workers = await live_processes(engine)
    ended = {label: await engine.tallies(span, STEP) for label, span in WINDOWS.items()}
    return exposed(
        [
            Gauge("afterwards_tasks", "Stored tasks, by queue and state.", _counts(stats)),
            Gauge(
                "afterwards_oldest_task_age_seconds",
                "Time that the longest waiting task could have started; 0 if none waits.",
                [Sample(stats.oldest.total_seconds() if stats.oldest else 0)],
            ),
            Gauge("afterwards_attempts_ended", "Attempts that ended within this time.", _ends(ended)),
            Gauge(
                "afterwards_workers",
                "Workers seen within the last 30 seconds.",
                [Sample(sum(not worker.dispatches for worker in workers))],
            ),
            Gauge(
                "afterwards_dispatchers",
                "Processes seen within the last 30 seconds that send tasks to a fleet.",
                [Sample(sum(worker.dispatches for worker in workers))],
            ),
            Gauge(
                "afterwards_worker_slots",
                "Tasks that all live workers can run at once.",
                [Sample(sum(worker.slots for worker in workers))],
            ),
            Gauge("afterwards_worker_loop_lag_seconds", "How late a worker's event loop was at most.", _lags(workers)),
            Gauge("afterwards_paused", "1 for everything that is paused.", _pauses(await engine.paused())),
        ]
    )


def _answer(verdict: Verdict) -> JSONResponse:
    report = HealthReport(healthy=verdict.well, detail=verdict.reason)
    return JSONResponse(report.model_dump(), 200 if verdict.well else 503, headers={"Cache-Control": "no-store"})


def _counts(stats: Stats) -> Iterator[Sample]:
    """Yield a count for each state of each queue that has tasks: an alert needs the zeros, too."""
    for queue in sorted({queue for queue, _ in stats.counts}):
        for state in State:
            yield Sample(stats.counts.get((queue, state), 0), {"queue": queue, "state": state})


def _ends(ended: Mapping[str, Sequence[Tally]]) -> Iterator[Sample]:
    for window, tallies in ended.items():
        ends = total(tally.ends for tally in tallies)
        for outcome, count in ends._asdict().items():
            yield Sample(count, {"outcome": outcome, "within": window})


def _lags(workers: list[LiveWorker]) -> Iterator[Sample]:
    for worker in workers:
        if worker.lag is not None:
            yield Sample(worker.lag.total_seconds(), {"host": worker.host, "pid": worker.pid, "worker": worker.id})


def _pauses(paused: Paused) -> Iterator[Sample]:
    for kind, names in (("queue", paused.queues), ("function", paused.names), ("schedule", paused.schedules)):
        for name in sorted(names):
            yield Sample(1, {"kind": kind, "name": name})
