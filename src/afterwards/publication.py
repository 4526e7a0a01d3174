"""What one request stores, and what of it is held back until the request has ended."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any

from afterwards import telemetry
from afterwards.client import Client, HeldBack
from afterwards.core.errors import EngineUnavailable
from afterwards.core.lifecycle import asked_for
from afterwards.core.task import NewTask, State, Task
from afterwards.joining import UNDECIDED, Call, Joining, Standing


class Publication:
    """What one request has stored, held back until the request has ended."""

    def __init__(
        self,
        client: Client,
        *,
        origin: str | None = None,
        at_once: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.client = client
        self.origin = origin  # who asks, as ``POST /signup``; None outside a request
        self.at_once = at_once  # outside a request, nothing has to end first
        self.used = False  # whether anything was stored
        self.answered = False  # whether its response has begun
        self.ended = False
        self.recorded: Exception | None = None  # a plain task's failure; whatever wraps that task passes it on
        self.last: str | None = None  # the task that the next one of the chain comes after
        self.flushing = asyncio.Lock()
        self.buffers: list[Any] = []  # every BackgroundTasks of the request
        self.held: list[HeldBack] = []
        self.joining: Sequence[Joining] = ()  # what waits for the commit of a session
        self.failed = False  # the handler raised, or its answer is an error
        self._storing: set[asyncio.Task[None]] = set()
        self._loop = loop

    @property
    def holds(self) -> bool:
        """Whether a task stored now is held back until the end."""
        return not (self.at_once or self.ended)

    async def store(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks, all or none; those held will be published at the end. Returns what stands for each."""
        self.used = True
        stored = await self.client.enqueue(tasks)
        over = self._keep(tasks, stored)
        if over:
            await self._publish(over)
        return stored

    def stored(self, tasks: Sequence[NewTask], stored: Sequence[Task]) -> None:
        """Somebody else has stored tasks of this request; those held will be published at the end."""
        self.used = True
        over = self._keep(tasks, stored)
        if over:
            self.soon(partial(self._publish, over))

    def watch(self, joining: Joining) -> None:
        """Tell at the end of the request if the session of a call was never committed."""
        joining.watched = True
        self.joining = (*self.joining, joining)

    def discard(self) -> None:
        """The handler raised: of what waits for a session's commit nothing will be stored, whoever commits it."""
        self.failed = True
        for joining in self.joining:
            if not joining.independent:
                joining.drop()

    def soon(self, store: Callable[[], Coroutine[None, None, None]]) -> None:
        """Store something without waiting on the event loop; from a thread, wait until it is done."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is not None and here is not self._loop and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(store(), self._loop).result()
            return
        self.used = True
        if here is None:  # in a script
            asyncio.run(store())
            return
        storing = asyncio.ensure_future(store())
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    async def settled(self) -> None:
        """Wait until all is stored that was to be stored soon."""
        while self._storing:
            await asyncio.wait(self._storing)

    async def end(self) -> None:
        """Let the tasks start. If the engine cannot be reached they become due by themselves, a minute later."""
        try:
            await self.settled()
        finally:  # cancelled, too: kept back no longer, what is held becomes due by itself
            self.ended = True
            if self.joining:
                self._tell_of_sessions()
            self.buffers.clear()  # each of which holds this: a circle for the garbage collector
            _going_on.discard(self)
        held, self.held = self.held, []
        if held:
            await self._publish(held)

    def _keep(self, tasks: Sequence[NewTask], stored: Sequence[Task]) -> list[HeldBack]:
        """Remember what is held. Returns what would be, had the request not ended meanwhile."""
        held: list[HeldBack] = []
        for new, task in zip(tasks, stored, strict=True):
            if new.id != task.id:  # another task answers for it
                continue
            if new.chained:
                self.last = new.id
            if not new.held:
                self.client.start(task)
            elif task.state is not State.WAITING:
                asked = asked_for(new, task.created_at)
                held.append(HeldBack(task.lease, asked if asked > task.created_at else None))
        if held and self.holds:
            self.held += held
            _going_on.add(self)
            return []
        return held

    def _tell_of_sessions(self) -> None:
        """Whoever commits a session from now on is too late for this request."""
        joining, self.joining = self.joining, ()
        for tell, standings in (
            (telemetry.never_committed, UNDECIDED),
            (telemetry.rolled_back, {Standing.ROLLED_BACK}),
        ):
            names = [one.call.name for one in joining if one.standing in standings]
            if names and not self.failed:
                tell(self.origin, names)
        for one in joining:
            one.drop()

    async def _publish(self, held: Sequence[HeldBack]) -> None:
        try:
            await self.client.publish(held)
        except EngineUnavailable as error:
            telemetry.engine_trouble("publish a request's tasks, which start within a minute", error, timedelta())


def in_line(calls: Sequence[Call], request: Publication) -> list[NewTask]:
    """The calls as they are stored, each after the one before it but for those that left the chain."""
    tasks, last = [], request.last
    for call in calls:
        after = last if call.chained else None
        new = call.new_task(
            request.client, origin=request.origin, after=after, held=request.holds, answered=request.answered
        )
        tasks.append(new)
        last = call.id if call.chained else last
    return tasks


def origin() -> str | None:
    """Who asks, as ``POST /signup``; None outside a request."""
    asked_by = publication.get()
    return asked_by.origin if asked_by else None


publication: ContextVar[Publication | None] = ContextVar("afterwards_publication", default=None)
"""What the current request has stored."""

_going_on: set[Publication] = set()


def going_on(client: Client) -> list[Publication]:
    """The requests that hold tasks back now."""
    return [publication for publication in _going_on.copy() if publication.client is client]
