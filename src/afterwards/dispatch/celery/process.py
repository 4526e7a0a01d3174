"""Our part of a process that runs tasks for Celery: one of a prefork pool's, or the worker's main process."""

import os
import threading
from typing import Any

from afterwards.dispatch.celery.children import allow_children, find_modules_as_celery_did
from afterwards.dispatch.celery.message import lease_of
from afterwards.dispatch.celery.orders import Pool, obey
from afterwards.dispatch.celery.runtime import Runtime
from afterwards.dispatch.fleet import Serve
from afterwards.telemetry import fleet

LIFESPAN_MAY_TAKE = 10.0
"""Seconds that the application's shutdown may take at the end of a process."""

ORDER_WITHIN = 2.0
"""Seconds from the end of a process of the pool within which the main one says that the worker shuts down, if so."""


class Process:
    """Runs the tasks that this process gets. It has begun only where Celery runs tasks."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._runtime: Runtime | None = None
        self._shuts_down = threading.Event()

    def begin(self, pool: Pool, slots: int) -> None:
        """Start to run tasks. Returns at once: Celery gives a process four seconds to begin."""
        find_modules_as_celery_did()
        queues = frozenset(pool.queues)
        self._runtime = Runtime(self._serve, queues=queues, slots=slots, failed=pool.fail)
        self._runtime.start()

    def begin_in_child(self, **_: Any) -> None:
        """Begin in a new process of a prefork pool."""
        pool = Pool.found()
        if pool is None or pool.main == os.getpid():  # a solo worker sends this signal, too
            return
        allow_children()
        self.begin(pool, slots=1)
        obey(pool, self.drain)

    def run(self, arguments: tuple[object, ...], named: dict[str, object]) -> None:
        """Run the attempt that a message names."""
        lease = lease_of(arguments, named)
        if lease is None:
            fleet.forged(repr(arguments)[:100])
        elif (runtime := self._runtime) is not None:  # another thread may end it meanwhile
            runtime.run(lease)

    def drain(self, times: int = 1) -> None:
        self._shuts_down.set()
        if (runtime := self._runtime) is not None:
            runtime.drain(times)

    def end(self) -> None:
        """Give back what still runs, and leave the application's lifespan."""
        if self._runtime is not None:
            self._runtime.drain(2)
            self._runtime.stop(LIFESPAN_MAY_TAKE)
            self._runtime = None

    def end_in_child(self, **_: Any) -> None:
        """End a process of a prefork pool, which Celery does after a SIGTERM, too.

        If a task runs here and the worker does not shut down, that signal was meant for the task, by Celery's time
        limit or ``revoke(terminate=True)``. That is a crash: given back, such a task would run again for ever.
        """
        if self._runtime is not None and (not self._runtime.busy or self._shuts_down.wait(ORDER_WITHIN)):
            self.end()
