"""The installations of this process, and the choice of one for calls outside requests."""

import gc
from collections.abc import Iterator
from weakref import WeakSet

from afterwards.client.client import Client, current
from afterwards.core.errors import NotInstalled
from afterwards.core.process_state import ProcessState


class Installations(ProcessState):
    """Every installation of this process that is still in use."""

    def __init__(self) -> None:
        self.applications: WeakSet[object] = WeakSet()  # applications with an installation
        self._clients: WeakSet[Client] = WeakSet()
        self._made = 0
        self._made_at_last_look = 0  # number created when unused ones were last collected

    def add(self, client: Client) -> Client:
        self._clients.add(client)
        self._made += 1
        return client

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients))

    def __len__(self) -> int:
        return len(self._clients)

    def candidates(self) -> list[Client]:
        """Return the installations that an unqualified call may refer to: the open ones, else all."""
        return [client for client in self._clients if client.opened] or list(self._clients)

    def forget_unused(self) -> None:
        """Collect garbage to drop installations of unused applications, if one was created since the last collection.

        Garbage collection is slow, so it is not done for each call.
        """
        if self._made_at_last_look < self._made:
            self._made_at_last_look = self._made
            gc.collect()


installations = Installations()


def the_client(doing: str) -> Client:
    """Return the client of the current request or task, else the only one of the process. Raises NotInstalled."""
    client = current.get()
    if client is not None:
        return client
    if len(installations) > 1:
        installations.forget_unused()
    candidates = installations.candidates()
    if len(candidates) > 1:  # before it is refused: one of them may be unused by now
        candidates.clear()
        gc.collect()
        candidates = installations.candidates()
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise NotInstalled(
            f"{doing} cannot be stored, because this process has no Afterwards: write `tasks = Afterwards(app)` where "
            "the application is made (from afterwards import Afterwards)"
        )
    raise NotInstalled(
        f"{doing} cannot be stored, because this process has {len(candidates)} installations of Afterwards, and no "
        "request or task is running that selects one: call it in a request or a task of the application that you mean"
    )
