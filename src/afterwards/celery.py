"""Run tasks on a Celery fleet that exists already: ``Afterwards(app, url, dispatch=CeleryDispatch(celery_app))``."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import Any, Never

from celery import Celery

from afterwards.core.dispatching import FORGOTTEN_AFTER
from afterwards.core.errors import InvalidOption
from afterwards.core.spans import as_span
from afterwards.core.spelling import check_names
from afterwards.core.text import shown
from afterwards.dispatch.celery.handle import CeleryHandle
from afterwards.dispatch.celery.inspection import troubles
from afterwards.dispatch.celery.message import NAME
from afterwards.dispatch.celery.process import Process
from afterwards.dispatch.celery.sender import Sender
from afterwards.dispatch.celery.worker import WorkerLife
from afterwards.dispatch.fleet import Serve
from afterwards.engine import Dispatch
from afterwards.tasks.registry import registry

__all__ = ["CeleryDispatch", "CeleryHandle"]

SOONEST = timedelta(seconds=0.1)
MOST_AHEAD = 100_000


class CeleryDispatch:
    """Hands the tasks of an application to the Celery workers of ``celery_app``, which import the application.

    ``celery -A main:celery_app worker`` runs them, where ``main`` is the module that creates both. A worker without
    ``-Q`` takes tasks from the queues of all task functions, and one with ``-Q`` from those only. The task functions
    need no change, and Celery's own tasks run beside them.

    Spans are seconds or timedeltas. Raises InvalidOption.

    - ``again_after``: time after which a message that no worker has taken is sent again (60 seconds). It is doubled
      each time. Messages that wait in a long queue are sent again, too: a second one does nothing.
    - ``ahead``: messages of each queue that are on their way at once (200). Tasks behind them wait in the store, where
      the order is by priority. At least twice the number of tasks that all workers run at once is best.
    """

    def __init__(
        self, celery_app: Celery, *, again_after: float | timedelta = 60, ahead: int = 200, **unknown: Never
    ) -> None:
        check_names(CeleryDispatch, unknown)
        if isinstance(celery_app, type) or not isinstance(celery_app, Celery):
            raise InvalidOption(f"CeleryDispatch({shown(celery_app)}): give the Celery app, as Celery(...) makes it")
        self.again_after = as_span(again_after, "again_after")
        if not SOONEST <= self.again_after <= FORGOTTEN_AFTER:
            raise InvalidOption(f"again_after={shown(again_after)}: give 0.1 seconds to a day")
        if isinstance(ahead, bool) or not isinstance(ahead, int) or not 0 < ahead <= MOST_AHEAD:
            raise InvalidOption(f"ahead={shown(ahead)}: give a whole number from 1 to {MOST_AHEAD}")
        self.ahead = ahead
        self.celery_app = celery_app
        self._sender = Sender(celery_app)

    def attach(self, serve: Serve) -> None:
        """Make Celery workers that import the application run its tasks. Called by ``Afterwards``."""
        process = Process(serve)
        WorkerLife(self.celery_app, process, lambda: {function.settings.queue for function in registry}).follow()

        def run(*arguments: Any, **named: Any) -> None:
            process.run(arguments, named)

        if module := _being_imported():
            run.__module__ = module  # Celery imports the modules of its tasks in processes that it spawns
        self.celery_app.task(
            run,
            name=NAME,
            shared=False,
            ignore_result=True,  # the record has it
            acks_late=False,  # the record is the truth, a message only a hint
            max_retries=0,
            typing=False,  # a forged message must not raise
            serializer="json",
        )

    async def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Send messages for these attempts. Called by the dispatcher."""
        await self._sender.send(dispatches)

    async def troubles(self) -> Sequence[str]:
        """Return why no Celery worker would run a task now. Called by ``afterwards check``."""
        return await troubles(self.celery_app)

    def __repr__(self) -> str:
        return f"CeleryDispatch({self.celery_app!r})"


def _being_imported() -> str | None:
    """Return the name of the module whose import has led here: who imports it gets the application, too."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    name = frame.f_globals.get("__name__") if frame is not None else None
    return name if name != "__main__" else None
