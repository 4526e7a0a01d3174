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
    """The resolver of dependencies, the threads of ``def`` functions, the store of uploaded files."""

    resolver: Resolver
    threads: Threads
    files: Files
    propagate: Sequence[ContextVar[Any]] = ()  # context variables that attempts get from their callers
    processes: ProcessPool | None = None  # for functions with `run_in="process"`; None: they run in threads

    def close(self) -> None:
        """Let the threads and processes end after their current calls."""
        self.threads.close()
        self.resolver.close()
        if self.processes is not None:
            self.processes.close()

    async def ended(self) -> None:
        """Wait for the processes. A thread cannot be stopped, and ends with the server's process."""
        if self.processes is not None:
            await self.processes.ended()
