"""What happens in a server, written down in the order in which it happens.

Situations and their tasks write, the client reads. The other way, the client opens gates, which situations wait for.
Both are files in the folder of the run, so that it does not matter which thread or process a task runs in.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

AT_SHUTDOWN = "shutdown: "  # how events begin that are recorded only when the server stops
TIMEOUT = 10.0  # seconds after which something that was waited for will not happen any more
POLL = 0.002

_place = Path()
_unheard: ContextVar[bool] = ContextVar("unheard", default=False)


def keep_in(folder: Path) -> None:
    """Use this folder for the diary and the gates of this process from now on."""
    global _place
    _place = folder
    (folder / "diary").touch()


def record(event: str) -> None:
    """Add one line, whole, whoever else is writing."""
    if _unheard.get():
        return
    line = f"{event}\n".encode()
    diary = os.open(_place / "diary", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(diary, line)
    finally:
        os.close(diary)


def unheard() -> None:
    """Leave out what is recorded from here on in this context: it belongs to the suite, not to the situation."""
    _unheard.set(True)


def events() -> list[str]:
    """All lines until now."""
    return (_place / "diary").read_text().splitlines()


def open_gate(name: str) -> None:
    """Let those pass who wait for this gate, now or later."""
    (_place / f"gate {name}").touch()


def is_open(name: str) -> bool:
    return (_place / f"gate {name}").exists()


async def gate(name: str) -> None:
    """Wait on the event loop until the gate is open."""
    deadline = time.monotonic() + TIMEOUT
    while not is_open(name):
        _check(deadline, f"the gate {name!r}")
        await asyncio.sleep(POLL)


def gate_in_a_thread(name: str) -> None:
    """Wait in a thread until the gate is open."""
    wait_until(lambda: is_open(name), f"the gate {name!r}")


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Poll until it has happened. Raises `TimeoutError`, naming it, when it does not."""
    deadline = time.monotonic() + TIMEOUT
    while not happened():
        _check(deadline, what)
        time.sleep(POLL)


def _check(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"waited {TIMEOUT:.0f} s for {what}; until then: {events()}")
