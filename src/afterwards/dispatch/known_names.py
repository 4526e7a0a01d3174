"""Find which task functions a fleet knows: in a deploy, its processes may run older code than this one."""

from datetime import timedelta

from afterwards.engine import Engine
from afterwards.execution.retrying import keep_doing
from afterwards.worker.live_processes import live_workers

LOOK_EVERY = timedelta(seconds=2)


class KnownNames:
    """The names that some live worker knows. If none lives, one that starts may know any.

    A fleet refuses what it does not know. Sent again each time, that would keep what is behind it from being sent at
    all.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: frozenset[str] | None = None

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        await keep_doing("look which functions the fleet knows", LOOK_EVERY, self.look)

    async def look(self) -> None:
        names = [worker.names for worker in await live_workers(self._engine)]
        self._known = frozenset().union(*names) if names else None

    def among(self, names: frozenset[str]) -> frozenset[str]:
        """Return those of these names that may be sent."""
        return names if self._known is None else names & self._known
