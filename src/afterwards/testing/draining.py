"""Run an application's tasks, and fire its schedules, when a test says so."""

import asyncio
from datetime import datetime

from afterwards.client.installations import the_client
from afterwards.core.task import State
from afterwards.testing.inline import Inline, InMemory, memory
from afterwards.web import embedded_worker

MOST_ATTEMPTS = 200
"""After so many, ``drain`` gives up on a task that snoozes for ever."""


async def drain_async(*, scheduled: bool = False) -> None:
    """Run tasks until none is due; with ``scheduled``, also those that are delayed or to be retried, moving the clock.

    Raises what the first attempt raised, after all have run; within ``allow_retries``, what the first task raised that
    has failed for good. Schedules are not fired.
    """
    kept = memory()
    failures = await _run_all(kept)
    begun = {task.id: task.attempt for task in kept.tasks}
    while scheduled and (waits := _waits(kept)):
        for task in kept.tasks:
            if task.attempt - begun.get(task.id, 0) > MOST_ATTEMPTS:
                raise RuntimeError(f"task {task.name} was run {MOST_ATTEMPTS} times, and asks to run again: {task!r}")
        kept.clock.advance(min(waits) - kept.clock())
        failures += await _run_all(kept)
    for failure in failures:
        raise failure


def drain(*, scheduled: bool = False) -> None:
    """As ``drain_async``, for tests that are not async. Raises RuntimeError on a running event loop."""
    _refuse_loop("drain")
    asyncio.run(drain_async(scheduled=scheduled))


async def fire_schedules_async() -> None:
    """Store a call of each ``@task(cron=...)`` and ``@task(every=...)`` that the clock has made due, for ``drain``.

    What is due is what came since the test began, or since this was called last, as for a worker that slept meanwhile:
    of several fires of one schedule its ``missed`` says which are made up for. Paused schedules do not fire.
    """
    for inline in await _used(memory()):
        await inline.fire()


def fire_schedules() -> None:
    """As ``fire_schedules_async``, for tests that are not async. Raises RuntimeError on a running event loop."""
    _refuse_loop("fire_schedules")
    asyncio.run(fire_schedules_async())


def _refuse_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{name}() was called in an async test: write `await {name}_async()`")


async def _run_all(kept: InMemory) -> list[BaseException]:
    embedded_worker.everyone()  # also those whose tasks no request has added
    return [failure for inline in kept.inlines for failure in await inline.run()]


def _waits(kept: InMemory) -> list[datetime]:
    return [task.run_at for task in kept.tasks if task.state is State.SCHEDULED and task.run_at]


async def _used(kept: InMemory) -> list[Inline]:
    """Those of the applications that this test uses; where it has used none yet, the only one. Raises NotInstalled."""
    embedded_worker.everyone()  # also those whose lifespans began in an earlier test
    if used := [inline for inline in kept.inlines if inline.used]:
        return used
    client = the_client("what schedules fire")
    await client.open()
    embedded_worker.everyone()
    return [inline for inline in kept.inlines if inline.client is client]
