"""What a worker and its server hear of the signals of a process."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

from afterwards.core.told_to_end import PASSED_ON_WITHIN
from afterwards.web.signals import HeldSignals, Signals

pytestmark = pytest.mark.anyio

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Heard:
    """Keeps who heard of what, in this order, at times that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.all: list[str] = []

    def clock(self) -> float:
        return self.now

    def drain(self) -> None:
        self.all.append("drain")

    def end(self) -> None:
        self.all.append("end")

    def server(self, number: int, frame: FrameType | None) -> None:
        self.all.append(signal.Signals(number).name)

    async def after(self, number: int) -> list[str]:
        """What is heard at this signal."""
        self.all.clear()
        signal.raise_signal(number)
        await asyncio.sleep(0)
        return sorted(self.all)


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    before = {number: signal.signal(number, heard.server) for number in NUMBERS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_the_server_hears_every_signal_and_the_worker_every_request(heard: Heard) -> None:
    with Signals(heard.drain, clock=heard.clock):
        assert await heard.after(signal.SIGINT) == ["SIGINT", "drain"]
        assert await heard.after(signal.SIGTERM) == ["SIGTERM"]
        heard.now += PASSED_ON_WITHIN
        assert await heard.after(signal.SIGTERM) == ["SIGTERM", "drain"]
    assert await heard.after(signal.SIGTERM) == ["SIGTERM"]


async def test_a_second_ctrl_c_is_another_request(heard: Heard) -> None:
    with Signals(heard.drain, clock=heard.clock):
        assert await heard.after(signal.SIGINT) == ["SIGINT", "drain"]
        assert await heard.after(signal.SIGINT) == ["SIGINT", "drain"]


async def test_a_request_is_held_back_however_often_it_is_heard(heard: Heard) -> None:
    with HeldSignals(heard.drain, heard.end, clock=heard.clock) as signals:
        assert await heard.after(signal.SIGINT) == ["drain", "end"]
        assert await heard.after(signal.SIGTERM) == []
        assert signals.held == signal.SIGINT
        heard.now += PASSED_ON_WITHIN
        assert await heard.after(signal.SIGTERM) == ["SIGTERM", "drain"]


BLOCKED = """
import asyncio, signal
from afterwards.web.signals import Signals

times = iter([0.0, 5.0])

async def never() -> None:
    await asyncio.Event().wait()

async def main() -> None:
    with Signals(lambda: None, never, clock=lambda: next(times)):
        signal.raise_signal(signal.SIGTERM)
        print("told", flush=True)
        signal.raise_signal(signal.SIGTERM)
        print("told again", flush=True)

asyncio.run(main())
"""


def test_a_later_signal_kills_a_process_whose_event_loop_is_blocked() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "told\n"), done.stderr


async def test_a_signal_that_the_process_ignores_is_not_held_back(heard: Heard) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with HeldSignals(heard.drain, heard.end, clock=heard.clock) as signals:
        assert await heard.after(signal.SIGINT) == ["drain"]
        assert signals.held is None
        assert await heard.after(signal.SIGTERM) == ["end"]
        assert signals.held == signal.SIGTERM
