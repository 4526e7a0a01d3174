"""An attempt that swallows its cancellation ends in its record, and frees its slot."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import Retry, State, task
from afterwards.core.settling import Settled
from afterwards.core.task import FailureKind
from afterwards.worker.stopping import CLEANING_UP, LOOK_EVERY
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

the_end = threading.Event()
"""What a thread waits for."""

gates: list[asyncio.Event] = []
"""What the functions wait for: one of the event loop of each test."""


async def swallow_all() -> None:
    the_diary.append("began")
    [gate] = gates
    while not gate.is_set():
        try:
            await gate.wait()
        except asyncio.CancelledError:
            the_diary.append("cancelled")


@task(timeout=0.1, retries=Retry(3, wait=0))
async def swallow_the_timeout() -> None:
    await swallow_all()


@task
async def swallow_the_cancel() -> None:
    await swallow_all()


async def swallow_at_the_end() -> AsyncIterator[None]:
    yield
    await swallow_all()


@task(timeout=0.1)
def return_one_that_swallows() -> Any:
    return swallow_all()


@task(timeout=0.1)
def depend_on_one_that_swallows(swallowed: Annotated[None, Depends(swallow_all)]) -> None: ...


@task(timeout=0.1)
def end_with_one_that_swallows(swallowed: Annotated[None, Depends(swallow_at_the_end)]) -> None: ...


IN_THREADS = [return_one_that_swallows, depend_on_one_that_swallows, end_with_one_that_swallows]


@task
def return_one_that_swallows_the_cancel() -> Any:
    return swallow_all()


async def clean_up_after_the_thread() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(2)
    the_diary.append("cleaned up")


@task
def work_on_and_clean_up(cleaned_up: Annotated[None, Depends(clean_up_after_the_thread)]) -> str:
    the_diary.append("began")
    the_end.wait()
    return "all done"


@task(timeout=0.1)
async def clean_up_at_length() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(1)
        the_diary.append("cleaned up")


@pytest.fixture
async def gate() -> AsyncIterator[asyncio.Event]:
    gates[:] = [asyncio.Event()]
    yield gates[0]
    gates[0].set()


async def test_one_that_swallows_its_timeout_ends_as_timed_out(
    url: str, said: list[str], gate: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url, concurrency=1):
        handle = await swallow_the_timeout.enqueue()
        await until(lambda: said == ["began", "cancelled", "cancelled"])
        record = await finished(handle)
        assert await (await note.enqueue("next")).result(timeout=10) == "next", "its slot is free"
        assert said.count("began") == 1, "another attempt would run beside it"
        gate.set()
    assert record.state is State.FAILED
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]
    [told] = [line.getMessage() for line in caplog.records if "does not stop" in line.getMessage()]
    assert "swallow_the_timeout" in told


@pytest.mark.parametrize(
    "function", [swallow_the_cancel, return_one_that_swallows_the_cancel], ids=lambda function: function.name
)
async def test_one_that_swallows_its_cancel_ends_as_cancelled(
    url: str, said: list[str], gate: asyncio.Event, function: Any
) -> None:
    async with working(url, concurrency=1):
        handle = await function.enqueue()
        await until(lambda: said == ["began"])
        await handle.cancel("enough")
        record = await finished(handle)
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        gate.set()
    assert (record.state, record.reason) == (State.CANCELLED, "enough")


@pytest.mark.parametrize("function", IN_THREADS, ids=lambda function: function.name)
async def test_what_a_thread_leaves_to_the_event_loop_ends_as_timed_out(
    url: str, said: list[str], gate: asyncio.Event, caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    async with working(url, concurrency=1):
        record = await finished(await function.enqueue())
        assert await (await note.enqueue("next")).result(timeout=10) == "next", "its slot is free"
        gate.set()
    assert said == ["began", "cancelled", "cancelled", "next"]
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]
    [told] = [line.getMessage() for line in caplog.records if "does not stop" in line.getMessage()]
    assert function.name in told


async def test_one_whose_thread_goes_on_after_a_cancel_may_still_clean_up(url: str, said: list[str]) -> None:
    the_end.clear()
    async with working(url, concurrency=1):
        handle = await work_on_and_clean_up.enqueue()
        await until(lambda: said == ["began"])
        await handle.cancel("too late")
        cancelled_at = monotonic()
        await until(lambda: monotonic() > cancelled_at + CLEANING_UP + LOOK_EVERY)
        the_end.set()
        assert await handle.result(timeout=10) == "all done"
    assert said == ["began", "cleaned up"]


async def test_one_that_swallows_the_loss_of_its_lease_frees_its_slot(
    url: str, said: list[str], gate: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a SIGSTOP: by then others have decided on the task."""
    async with working(url, concurrency=1, lease=timedelta(seconds=0.6)) as tasks:
        handle = await swallow_the_cancel.enqueue()
        await until(lambda: said == ["began"])
        engine = await tasks.client.open()
        [task] = await engine.get([handle.id])
        lost = Settled(lease=task.lease, state=State.SCHEDULED, wait=timedelta(hours=1))
        assert await engine.finish([lost]) == []
        assert await (await note.enqueue("next")).result(timeout=20) == "next"
        gate.set()
        assert (await handle.status()).state is State.SCHEDULED
    [told] = [line.getMessage() for line in caplog.records if "does not stop" in line.getMessage()]
    assert "Its lease is lost" in told


async def test_one_that_cleans_up_is_left_alone(url: str, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with working(url):
        record = await finished(await clean_up_at_length.enqueue())
    assert said == ["cleaned up"]
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]
    assert not [line for line in caplog.records if "does not stop" in line.getMessage()]
