"""Start coroutines on the worker's event loop, each in a context of its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from afterwards.execution.fresh_context import FreshContexts


class Spawner:
    """The event loop of a worker, and the context in which the worker began."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self._kept: set[asyncio.Task[None]] = set()  # the event loop keeps only weak references to tasks

    def open(self) -> None:
        """Use the running event loop and the current context."""
        self.loop = asyncio.get_running_loop()
        self._contexts = FreshContexts()

    def start(self, doing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a coroutine that the caller keeps alive."""
        return self.loop.create_task(doing, context=self._contexts.fresh())

    def start_and_keep(self, doing: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine, and keep it alive until it ends."""
        begun = self.start(doing)
        self._kept.add(begun)
        begun.add_done_callback(self._kept.discard)
