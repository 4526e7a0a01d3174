"""The runner of each installation in this process: a worker, a dispatcher, or none."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from fastapi import FastAPI

from afterwards.client.client import Client
from afterwards.client.installations import installations
from afterwards.core.options import Options
from afterwards.core.process_state import ProcessState
from afterwards.dispatch.fleet import Fleet
from afterwards.web.dispatching import check_store, dispatcher
from afterwards.web.embedded import NOTHING, Embedded
from afterwards.web.embedded_worker import worker


class Serving(Protocol):
    """Runs tasks for one application, or has a fleet run them."""

    @property
    def started(self) -> bool:
        """Return whether it is running, or need not be started."""
        ...

    def working(self, state: Mapping[str, Any]) -> AbstractAsyncContextManager[None]:
        """Run tasks inside the block; ``state`` is what the application's lifespan yielded."""
        ...

    def drain(self) -> None:
        """Begin to shut down, because the process was told to end. A second call ends every wait."""
        ...

    async def released(self) -> None:
        """Wait until a drain has given back all tasks that can be stopped."""
        ...

    async def request_ended(self) -> None:
        """Handle the end of a request that stored tasks."""
        ...


def serving(app: FastAPI, client: Client) -> Serving:
    """Return what runs this application's tasks: the same object each time, unless it is replaced."""
    try:
        return _runners.serving[client]
    except KeyError:
        return _runners.serving.setdefault(client, _runners.make(app, client, client.options))


def installed(app: FastAPI, client: Client, fleet: Fleet | None = None) -> Callable[[], Serving]:
    """Return a function that returns what runs this application's tasks. It is called when the application starts."""
    client.application = ref(app)
    if fleet is not None:
        _runners.fleets[client] = fleet
    return partial(serving, app, client)


def fleet_of(client: Client) -> Fleet | None:
    """Return the fleet to which an installation dispatches its tasks."""
    return _runners.fleets.get(client)


def everyone() -> list[Serving]:
    """Return what runs tasks, for each application that has opened its engine."""
    opened = [(client.application(), client) for client in installations if client.opened and client.application]
    return [serving(app, client) for app, client in opened if app is not None]


@contextmanager
def replaced(make: Callable[[FastAPI, Client, Options], Serving]) -> Iterator[None]:
    """Replace what runs tasks inside the block: tests run them within the request."""
    with _runners.afresh():
        _runners.make = make
        yield


@contextmanager
def replaced_for(client: Client, runner: Serving) -> Iterator[None]:
    """Replace what runs the tasks of one installation inside the block."""
    before = _runners.serving.get(client)
    _runners.serving[client] = runner
    try:
        yield
    finally:
        _runners.serving.pop(client, None)
        if before is not None:
            _runners.serving[client] = before


def _embedded(app: FastAPI, client: Client, options: Options) -> Serving:
    """Return what runs when the application starts. Raises InvalidOption."""
    fleet = fleet_of(client)
    if fleet is not None:
        check_store(client, fleet)
    if not options.worker:
        return Embedded(client, options, NOTHING)
    if fleet is not None:
        return Embedded(client, options, dispatcher(client, fleet, options))
    return Embedded(client, options, worker(app, client, options))


class Runners(ProcessState):
    """The objects that run the tasks of each installation."""

    def __init__(self) -> None:
        self.make: Callable[[FastAPI, Client, Options], Serving] = _embedded
        self.serving: WeakKeyDictionary[Client, Serving] = WeakKeyDictionary()
        self.fleets: WeakKeyDictionary[Client, Fleet] = WeakKeyDictionary()


_runners = Runners()
