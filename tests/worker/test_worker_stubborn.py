"""An attempt that swallows its cancellation ends in its record, and frees its slot."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from afterwards import Retry, State, task
from afterwards.core.settling import Settled
from afterwards.core.task import FailureKind
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

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


async def test_one_that_swallows_its_cancel_ends_as_cancelled(url: str, said: list[str], gate: asyncio.Event) -> None:
    async with working(url, concurrency=1):
        handle = await swallow_the_cancel.enqueue()
        await until(lambda: said == ["began"])
        await handle.cancel("enough")
        record = await finished(handle)
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        gate.set()
    assert (record.state, record.reason) == (State.CANCELLED, "enough")


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
