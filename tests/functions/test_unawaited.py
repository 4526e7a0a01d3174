"""Writes that nobody awaits where they are asked for end in bounded time, and none is forgotten."""

import asyncio
import threading

import pytest

from afterwards.client import unawaited
from afterwards.client.client import Client
from afterwards.client.unawaited import UnawaitedWrites
from afterwards.core.errors import EngineUnavailable
from afterwards.core.options import Options

pytestmark = pytest.mark.anyio


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unawaited, "LONGEST_WAIT", 0.05)


async def test_a_thread_waits_until_it_is_stored() -> None:
    stored: list[str] = []

    async def write() -> None:
        await asyncio.sleep(0)
        stored.append("stored")

    def ask(loop: asyncio.AbstractEventLoop) -> list[str]:
        UnawaitedWrites().start(write, loop)
        return list(stored)

    assert await asyncio.to_thread(ask, asyncio.get_running_loop()) == ["stored"]


async def test_a_thread_gets_what_the_write_raised() -> None:
    async def write() -> None:
        raise EngineUnavailable("away")

    with pytest.raises(EngineUnavailable, match="away"):
        await asyncio.to_thread(UnawaitedWrites().start, write, asyncio.get_running_loop())


async def test_a_thread_goes_on_when_the_event_loop_is_blocked_and_the_write_is_done_later(
    short: None, caplog: pytest.LogCaptureFixture
) -> None:
    stored, went_on = asyncio.Event(), threading.Event()

    async def write() -> None:
        stored.set()

    def ask(loop: asyncio.AbstractEventLoop) -> None:
        UnawaitedWrites().start(write, loop)
        went_on.set()

    asking = threading.Thread(target=ask, args=[asyncio.get_running_loop()])
    asking.start()
    assert went_on.wait(10), "it waits for as long as the loop is blocked"  # which blocks this event loop
    assert "is not stored after" in caplog.text
    await asyncio.wait_for(stored.wait(), 10)
    asking.join()


def test_without_an_event_loop_it_is_an_error_after_a_while(short: None) -> None:
    async def write() -> None:
        await asyncio.Event().wait()

    with pytest.raises(EngineUnavailable, match="nothing was stored"):
        UnawaitedWrites().start(write, None)


async def test_what_was_started_is_waited_for_when_the_client_is_closed() -> None:
    client = Client("memory://", Options())
    stored: list[str] = []

    async def write() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stored.append("stored")

    client.unawaited.start(write, None)
    await client.close()
    assert stored == ["stored"]


async def test_the_end_of_a_client_waits_no_longer_than_that(short: None) -> None:
    client = Client("memory://", Options())
    writing = client.unawaited.start(lambda: asyncio.Event().wait(), None)  # type: ignore[arg-type, return-value]
    await asyncio.wait_for(client.close(), 10)
    assert writing is not None
    writing.cancel()
