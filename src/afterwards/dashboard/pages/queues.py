"""The queues: how many tasks each has in each state, and which are paused."""

from collections.abc import Mapping
from dataclasses import dataclass

from afterwards.core.task import PENDING, State
from afterwards.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """A queue that has tasks, or is paused."""

    name: str
    counts: Mapping[State, int]
    paused: bool

    @property
    def backlog(self) -> int:
        return sum(self.counts.get(state, 0) for state in PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesPage:
    """The values for the template."""

    queues: list[QueueRow]
    paused_functions: list[str]


async def queues_page(engine: Engine) -> QueuesPage:
    """Read the page: two calls of the engine."""
    stats = await engine.stats()
    paused = await engine.paused()
    counts = stats.by_queue
    return QueuesPage(
        queues=[
            QueueRow(name=name, counts=counts.get(name, {}), paused=name in paused.queues)
            for name in sorted(counts.keys() | paused.queues)
        ],
        paused_functions=sorted(paused.names),
    )
