"""The step before a result is awaited, in which tests run the task: no worker does."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from afterwards.client.client import Client
from afterwards.core.process_state import ProcessState

RunAwaited = Callable[[Client, str, bool], Awaitable[None]]
"""Run a task, by its id, whose result is awaited; True if the caller has a timeout."""


class Waiting(ProcessState):
    """The way to run tasks whose results are awaited; None where workers do."""

    def __init__(self) -> None:
        self.run: RunAwaited | None = None


_waiting = Waiting()


async def run_awaited(client: Client, id: str, *, with_timeout: bool) -> None:
    """Do nothing, but in tests run a task whose result is awaited."""
    if _waiting.run is not None:
        await _waiting.run(client, id, with_timeout)


@contextmanager
def running(run: RunAwaited) -> Iterator[None]:
    """Have tasks run where their results are awaited, inside the block."""
    with _waiting.afresh():
        _waiting.run = run
        yield
