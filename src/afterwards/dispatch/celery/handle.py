"""The handle of a Celery task that was added."""

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from afterwards.core.already_called import called_already
from afterwards.core.errors import (
    NoResultBackend,
    NotAFunction,
    NotFinished,
    NotStored,
    TaskFailed,
)
from afterwards.core.shown_as_id import ShownAsId
from afterwards.core.spans import as_span
from afterwards.core.text import said_by, shown, type_name
from afterwards.dispatch.celery import delivery
from afterwards.dispatch.celery.calls import CeleryCall, celery_call, celery_task
from afterwards.dispatch.celery.threads import Opened, asking

R = TypeVar("R", covariant=True)

FIRST_LOOK, LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two looks at a result that is awaited: the first pause, and the limit of its doubling."""

ANSWER_WITHIN = 10.0
"""Seconds within which a result backend must answer."""


class CeleryHandle(ShownAsId, Generic[R]):
    """A Celery task that was added. ``id`` is Celery's: ``AsyncResult(handle.id)`` is the same task.

    State and result are Celery's, kept by its result backend. Before the task is sent every method raises NotStored.
    """

    __slots__ = ("__weakref__", "_call", "_result", "id", "name")

    def __init__(self, call: CeleryCall) -> None:
        self.id = call.id
        self.name = call.name
        self._call = call
        self._result: Any = None  # Celery's, once it was sent

    async def status(self) -> str:
        """Return Celery's state, as ``SUCCESS``. Celery knows no unknown tasks: those are ``PENDING``.

        Raises NoResultBackend, and TimeoutError if the result backend does not answer.
        """
        return cast(str, await self._ask(lambda result: result.state))

    async def result(self, *, timeout: float | timedelta | None = None) -> R:
        """Wait for the task's result, and return it; ``timeout`` in seconds.

        Raises TaskFailed when the task failed or was revoked, with its exception as the cause; NotFinished on timeout,
        NoResultBackend.
        """
        span = None if timeout is None else as_span(timeout, "timeout")
        try:
            async with asyncio.timeout(None if span is None else span.total_seconds()) as waiting:
                state, value = await self._finished()
        except TimeoutError:
            if not waiting.expired():
                raise
            raise NotFinished(f'Celery task "{self.name}" ({self.id}) did not finish within {span}') from None
        if state == "SUCCESS":
            return cast(R, value)
        cause = value if isinstance(value, BaseException) else None
        why = "" if cause is None else f": {type_name(cause)}: {said_by(cause)}"
        raise TaskFailed(f'Celery task "{self.name}" ({self.id}) is {state}{why}') from cause

    async def cancel(self) -> None:
        """Revoke the task: a worker that has not begun it will not. One that runs goes on.

        Celery's workers remember this only while they run, and hear of it only if they run now. Raises
        BrokerUnavailable.
        """
        self._sent()
        await delivery.revoke(self._call)

    def mark_sent(self, result: Any) -> None:
        """Record that the task is sent; ``result`` is Celery's."""
        self._result = result

    def __repr__(self) -> str:
        return f"CeleryHandle({self.id!r})"

    async def _finished(self) -> tuple[str, Any]:
        """Return the final state, and the result or exception.

        Celery's result asks its backend at each look, until it has seen a final state: so that is looked for first.
        """
        pause = FIRST_LOOK
        while True:
            ready, state, value = await self._ask(lambda result: (result.ready(), result.state, result.result))
            if ready:
                return state, value
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _ask(self, what: Callable[[Any], Any]) -> Any:
        """Ask Celery's result in a thread: a backend may block, and its connections belong to one thread."""
        sent, call = self._sent(), self._call
        if isinstance(sent, sys.modules["celery.result"].EagerResult):  # it has run, under `task_always_eager`
            return what(sent)
        _check_backend(call, sent)

        def ask(opened: Opened) -> Any:
            return what(call.app.AsyncResult(call.id))

        return await asking.run(ask, within=ANSWER_WITHIN)

    def _sent(self) -> Any:
        if self._result is None:
            raise NotStored(self.id)
        return self._result


async def send_now(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CeleryHandle[Any]:
    """Send a call of a Celery task. Raises BrokerUnavailable, UnstorableArgument, NotAFunction."""
    task = celery_task(given)
    if task is None and not callable(given):
        raise NotAFunction(f"tasks.enqueue: {called_already(given, 'tasks.enqueue({}(1))', 'tasks.enqueue({}, 1)')}")
    if task is None:
        raise NotAFunction(
            f"tasks.enqueue({shown(given)}, ...): give a @task function or a Celery task; a plain function would not "
            "survive: write @task above it"
        )
    call = celery_call(task, args, kwargs)
    [result] = await delivery.send([call])
    handle: CeleryHandle[Any] = CeleryHandle(call)
    handle.mark_sent(result)
    return handle


def _check_backend(call: CeleryCall, sent: Any) -> None:
    if type(call.app.backend).__name__ == "DisabledBackend":
        raise NoResultBackend(
            call.name,
            "keeps no state and no result, because its Celery application has no result backend: give it one with "
            "Celery(..., backend=...), or make the function a @task of Afterwards",
        )
    if getattr(sent, "ignored", False):
        raise NoResultBackend(call.name, "keeps no state and no result: it has ignore_result=True")
