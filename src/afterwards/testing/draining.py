"""``drain`` and ``fire_schedules``: run tasks and fire schedules at a chosen point of a test."""

import asyncio
from datetime import datetime

from afterwards.client.installations import the_client
from afterwards.core.task import State
from afterwards.testing.inline import Inline, InMemory, memory
from afterwards.web import runners

MOST_ATTEMPTS = 200
"""Attempts of one task after which ``drain`` raises, as for a task that always snoozes."""


async def drain_async(*, scheduled: bool = False) -> None:
    """Run tasks until none is due. With ``scheduled``, move the clock to run delayed tasks and retries, too.

    After all have run, it raises the first exception of an attempt. Within ``allow_retries`` it raises the first
    exception of a task that has finally failed. Schedules are not fired.
    """
    kept = memory()
    failures = await _run_all(kept)
    begun = {task.id: task.attempt for task in kept.tasks}
    while scheduled and (waits := _waits(kept)):
        for task in kept.tasks:
            if task.attempt - begun.get(task.id, 0) > MOST_ATTEMPTS:
                raise RuntimeError(
                    f"task {task.name} has run {MOST_ATTEMPTS} times and is still not finished: {task!r}"
                )
        kept.clock.advance(min(waits) - kept.clock())
        failures += await _run_all(kept)
    for failure in failures:
        raise failure


def drain(*, scheduled: bool = False) -> None:
    """Do the same as ``drain_async`` in a test that is not async. Raises RuntimeError if an event loop runs."""
    _refuse_loop("drain")
    asyncio.run(drain_async(scheduled=scheduled))


async def fire_schedules_async() -> None:
    """Store a task for each schedule that is due by the test's clock. ``drain`` then runs them.

    A schedule is due if it had a fire since the test began, or since the last call. If it had several, its option
    ``missed`` says which of them run. Paused schedules do not fire.
    """
    for inline in await _used(memory()):
        await inline.fire()


def fire_schedules() -> None:
    """Do the same as ``fire_schedules_async`` in a test that is not async. Raises RuntimeError if a loop runs."""
    _refuse_loop("fire_schedules")
    asyncio.run(fire_schedules_async())


def _refuse_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{name}() was called in an async test: write `await {name}_async()`")


async def _run_all(kept: InMemory) -> list[BaseException]:
    runners.everyone()  # also applications that had no request in this test
    return [failure for inline in kept.inlines for failure in await inline.run()]


def _waits(kept: InMemory) -> list[datetime]:
    return [task.run_at for task in kept.tasks if task.state is State.SCHEDULED and task.run_at]


async def _used(kept: InMemory) -> list[Inline]:
    """Return the applications that this test has used, else the only one in the process. Raises NotInstalled."""
    runners.everyone()  # also applications whose lifespans began in an earlier test
    if used := [inline for inline in kept.inlines if inline.used]:
        return used
    client = the_client("what schedules fire")
    await client.open()
    runners.everyone()
    return [inline for inline in kept.inlines if inline.client is client]
