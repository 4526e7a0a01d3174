"""The resources that the attempts of one application share."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from afterwards.engine import Files
from afterwards.execution.dependencies import Resolver
from afterwards.execution.process_pool import ProcessPool
from afterwards.execution.threads import Threads


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How dependencies are resolved, where ``def`` functions run, where uploaded files are."""

    resolver: Resolver
    threads: Threads
    files: Files
    propagate: Sequence[ContextVar[Any]] = ()  # what attempts get as their callers had it
    processes: ProcessPool | None = None  # where functions run that want one of their own; None: in threads

    def close(self) -> None:
        """Let the threads and processes end after what they do now."""
        self.threads.close()
        self.resolver.close()
        if self.processes is not None:
            self.processes.close()

    async def ended(self) -> None:
        """Wait for the processes; a thread cannot be stopped, and ends with the server's process."""
        if self.processes is not None:
            await self.processes.ended()
