"""The JSON API below ``{prefix}/api``: numbers, queues, pauses, schedules and workers."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException

from afterwards.core.errors import UnknownFunction
from afterwards.core.routing import FORGOTTEN_AFTER, LiveWorker
from afterwards.dashboard import actions, numbers, schedules, shapes
from afterwards.dashboard.filters import Name
from afterwards.dashboard.site import Acting, Site, Visited
from afterwards.dashboard.throughput import Span, throughput
from afterwards.engine import Paused
from afterwards.tasks.registry import registry
from afterwards.worker.live_processes import live_processes

NO_SCHEDULE: dict[int | str, dict[str, Any]] = {
    404: {"model": shapes.Refused, "description": "There is no such schedule"}
}

router = APIRouter()


@router.get("/stats")
async def show_stats(site: Visited) -> shapes.Numbers:
    """Return how many tasks there are in each state."""
    return shapes.Numbers(**numbers.of(await (await site.engine()).stats()))


@router.get("/throughput")
async def show_throughput(site: Visited, span: Span = Span.HOUR) -> shapes.Steps:
    """Return how many attempts have ended, also those of tasks whose records are gone. Empty steps are zeros."""
    found = await throughput(await site.engine(), span, site.client.now())
    return shapes.Steps(
        span=span,
        step=span.step.total_seconds(),
        steps=[shapes.Step(at=tally.at, **tally.ends._asdict()) for tally in found.tallies],
    )


@router.get("/queues")
async def list_queues(site: Visited) -> shapes.Queues:
    """List the queues that have tasks or are paused."""
    engine = await site.engine()
    paused = (await engine.paused()).queues
    counts = (await engine.stats()).by_queue
    return shapes.Queues(
        queues=[
            shapes.QueueCounts(queue=queue, paused=queue in paused, states=counts.get(queue, {}))
            for queue in sorted(counts.keys() | paused)
        ]
    )


@router.get("/paused")
async def list_pauses(site: Visited) -> shapes.PausedNow:
    """List everything that is paused."""
    return await _paused_now(site)


@router.post("/queues/{queue}/pause")
async def pause_queue(site: Acting, queue: Name) -> shapes.PausedNow:
    """Start no task of a queue until it is resumed. Running tasks continue."""
    await actions.pause(site, Paused(queues=frozenset({queue})))
    return await _paused_now(site)


@router.post("/queues/{queue}/resume")
async def resume_queue(site: Acting, queue: Name) -> shapes.PausedNow:
    """End the pause of a queue."""
    await actions.resume(site, Paused(queues=frozenset({queue})))
    return await _paused_now(site)


@router.post("/names/{name}/pause")
async def pause_name(site: Acting, name: Name) -> shapes.PausedNow:
    """Start no task of a task function until it is resumed. Running tasks continue."""
    await actions.pause(site, Paused(names=_names_of(name)))
    return await _paused_now(site)


@router.post("/names/{name}/resume")
async def resume_name(site: Acting, name: Name) -> shapes.PausedNow:
    """End the pause of a task function."""
    await actions.resume(site, Paused(names=_names_of(name)))
    return await _paused_now(site)


@router.get("/schedules")
async def list_schedules(site: Visited) -> shapes.Schedules:
    """List the schedules of all task functions, also of those that only other processes know."""
    return shapes.Schedules(schedules=[shapes.Schedule(**asdict(one)) for one in await schedules.schedules(site)])


@router.post("/schedules/{name}/pause", responses=NO_SCHEDULE)
async def pause_schedule(site: Acting, name: Name) -> shapes.PausedNow:
    """Fire a schedule no more until it is resumed. Tasks that it has stored already run."""
    return await _unless_missing(site, name, found=await schedules.pause(site, name))


@router.post("/schedules/{name}/resume", responses=NO_SCHEDULE)
async def resume_schedule(site: Acting, name: Name) -> shapes.PausedNow:
    """Fire a schedule again, from now on."""
    return await _unless_missing(site, name, found=await schedules.resume(site, name))


@router.get("/workers", response_model=shapes.Workers)
async def list_workers(site: Visited) -> Any:
    """List the workers that were seen within the last day."""
    engine = await site.engine()
    seen = await engine.workers(FORGOTTEN_AFTER)  # first: one that comes now is not in it, and is not shown as gone
    alive = {one.id for one in await live_processes(engine)}
    return shapes.Workers(workers=[_worker(one, alive) for one in seen])


async def _paused_now(site: Site) -> shapes.PausedNow:
    paused = await (await site.engine()).paused()
    return shapes.PausedNow(
        queues=sorted(paused.queues), names=sorted(paused.names), schedules=sorted(paused.schedules)
    )


async def _unless_missing(site: Site, name: str, *, found: bool) -> shapes.PausedNow:
    if not found:
        raise HTTPException(404, f"no task function named {name} has a schedule")
    return await _paused_now(site)


def _names_of(name: str) -> frozenset[str]:
    """Return the names of a task function, also earlier ones; the name alone if this process does not know it."""
    try:
        function = registry.get(name)
    except UnknownFunction:
        return frozenset({name})
    return frozenset({function.name, *function.aliases})


def _worker(worker: LiveWorker, alive: Collection[str]) -> dict[str, Any]:
    lag = None if worker.lag is None else worker.lag.total_seconds()
    return {**asdict(worker), "lag": lag, "alive": worker.id in alive}
