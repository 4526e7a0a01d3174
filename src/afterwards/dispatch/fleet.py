"""The protocols between an application and a fleet that runs its tasks. Celery is one."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from afterwards.core.dispatching import FORGOTTEN_AFTER
from afterwards.core.errors import InvalidOption
from afterwards.core.task import Lease
from afterwards.core.text import shown
from afterwards.engine import Dispatch


class NotSent(Exception):
    """The fleet's broker did not accept dispatches. Those before them were accepted."""

    def __init__(self, unsent: Sequence[Dispatch], reason: str) -> None:
        super().__init__(reason)
        self.unsent = unsent
        self.reason = reason  # in words, without passwords


class FleetWorker(Protocol):
    """Runs tasks in a process of the fleet. All methods belong to the event loop that made it."""

    async def run(self, lease: Lease) -> bool:
        """Claim this attempt, run it, and return when its end is stored. False if the claim was refused.

        Never raises: how an attempt ended is in the record. While it drains, every claim is refused. It also returns
        when the worker is not to wait for the attempt any longer, as for a thread that ends after the grace period.
        """
        ...

    def drain(self) -> None:
        """Claim nothing more, and give back what still runs after the grace period. A second call ends that period."""
        ...


class Serve(Protocol):
    """Runs an application's lifespan and a worker for it inside the block, on the running event loop."""

    def __call__(
        self, *, queues: frozenset[str] | None = None, slots: int = 1
    ) -> AbstractAsyncContextManager[FleetWorker]:
        """Begin. Call it in a thread other than the main one, whose signals the fleet's process handles.

        ``queues`` are those that the fleet's process receives from (None: all), and ``slots`` is the number of tasks
        that it runs at once. They are what people see of the process, and decide which tasks nobody would take; they
        bound nothing. Raises RuntimeError in the main thread, and what opening the store raises.
        """
        ...


class Fleet(Protocol):
    """Software that runs tasks in processes of its own: the value of ``Afterwards(app, dispatch=...)``."""

    again_after: timedelta
    """How long a dispatch may be on its way before it is sent again."""

    ahead: int
    """How many tasks of each queue may be on their way at once."""

    def attach(self, serve: Serve) -> None:
        """Make the fleet's processes run an application's tasks. Called once, when the application is installed."""
        ...

    async def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Send dispatches in this order, each to the queue of its name. Bounded in time.

        Returns when the broker has accepted all of them. Raises NotSent.
        """
        ...


@runtime_checkable
class Inspected(Protocol):
    """A fleet that can be asked whether its processes would run tasks."""

    async def troubles(self) -> Sequence[str]:
        """Return, in words and without passwords, why none of its processes would run a task now. Bounded in time."""
        ...


def check_fleet(fleet: object) -> None:
    """Raise InvalidOption for a value of ``dispatch=`` that is no fleet."""
    if isinstance(fleet, type):
        raise InvalidOption(f"dispatch={fleet.__name__}: give an object of this class, as {fleet.__name__}(...)")
    if not all(callable(getattr(fleet, method, None)) for method in ("attach", "send")):
        raise InvalidOption(f"dispatch={shown(fleet)}: give a fleet, as afterwards.celery.CeleryDispatch(app)")
    again, ahead = getattr(fleet, "again_after", None), getattr(fleet, "ahead", None)
    if not (isinstance(again, timedelta) and timedelta() < again <= FORGOTTEN_AFTER):
        raise InvalidOption(f"{name_of(fleet)}.again_after={shown(again)}: give a timedelta, at most a day")
    if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1:
        raise InvalidOption(f"{name_of(fleet)}.ahead={shown(ahead)}: give a whole number, at least 1")


def name_of(fleet: object) -> str:
    """Return the name of a kind of fleet, as people know it."""
    return type(fleet).__name__
