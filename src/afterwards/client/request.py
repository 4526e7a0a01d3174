"""The tasks of one request: stored before its response, held back until it has ended."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

from afterwards import telemetry
from afterwards.client.client import Client, HeldBack
from afterwards.client.session_call import UNDECIDED, WHY_NOT, Joining, Standing, UnstoredCall
from afterwards.client.unawaited import LONGEST_WAIT, Write
from afterwards.core.errors import EngineUnavailable
from afterwards.core.lifecycle import asked_for
from afterwards.core.task import NewTask, State, Task


class RequestTasks:
    """The tasks that one request has stored, held back until the request has ended."""

    # Most requests do not change these: as attributes of the class they cost nothing.
    used = False  # whether anything was stored
    answered = False  # whether its response has begun
    ended = False
    failed = False  # the handler raised, or its answer is an error
    refused = False  # its client was told that nothing is stored
    recorded: Exception | None = None  # a plain task's recorded failure; wrappers of the task raise it again
    last: str | None = None  # the predecessor of the chain's next task
    joining: Sequence[Joining] = ()  # calls that wait for the commit of a session
    flushing = False  # a flush is running
    _flushed: asyncio.Event | None = None  # set at its end, if somebody waits

    def __init__(
        self,
        client: Client,
        *,
        origin: str | None = None,
        at_once: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.client = client
        self.origin = origin  # the request, as ``POST /signup``; None outside a request
        self.at_once = at_once  # outside a request: tasks are not held back
        self.buffers: list[Any] = []  # every BackgroundTasks of the request
        self.held: list[HeldBack] = []
        self._writing: set[asyncio.Task[None]] = set()
        self._loop = loop

    @property
    def holds(self) -> bool:
        """Return whether a task stored now is held back until the end of the request."""
        return not (self.at_once or self.ended)

    async def flushed(self) -> None:
        """Wait for the end of the running flush."""
        self._flushed = self._flushed or asyncio.Event()
        await self._flushed.wait()

    def end_flush(self) -> None:
        """End a flush, whether it succeeded or not: the next one may begin."""
        flushed, self.flushing, self._flushed = self._flushed, False, None
        if flushed is not None:
            flushed.set()

    def stored(self, tasks: Sequence[NewTask], stored: Sequence[Task]) -> None:
        """Record tasks of this request that have been stored. Held ones will be published at its end."""
        self.used = True
        held: list[HeldBack] = []
        for new, task in zip(tasks, stored, strict=True):
            if new.id != task.id:  # another task stands for it
                continue
            if new.chained:
                self.last = new.id
            if not new.held:
                self.client.start(task)
            elif task.state is not State.WAITING:
                held.append(_held_back(new, task))
        if held and self.holds:
            self.held += held
            self.client.holding.add(self)
        elif held:  # the request has ended meanwhile
            self.start_write(partial(self._publish, held))

    def watch(self, joining: Joining) -> None:
        """Have a warning logged at the end of the request if the session of a call was never committed."""
        joining.watched = True
        self.joining = (*self.joining, joining)

    def tell_of_late_commits(self) -> None:
        """Warn of calls whose session had not committed when the response began."""
        if names := [one.call.name for one in self.joining if one.standing is Standing.WAITING]:
            telemetry.committed_late(self.origin, names)

    def discard(self) -> None:
        """Drop calls that wait for a session's commit, because the handler raised."""
        self.failed = True
        for joining in self.joining:
            if not joining.independent:
                joining.drop()

    def is_on_its_loop(self) -> bool:
        """Return whether this is called on the request's event loop, where nothing may wait for a write."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            return False
        return self._loop is None or self._loop is here

    def start_write(self, write: Write) -> None:
        """Start a write that is not awaited here; in a thread, wait for it."""
        self.used = True
        if writing := self.client.unawaited.start(write, self._loop):
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    async def settled(self) -> None:
        """Wait for the writes that were not awaited where they were started."""
        deadline = asyncio.get_running_loop().time() + LONGEST_WAIT
        while self._writing and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._writing, timeout=left)

    async def end(self) -> None:
        """Start the tasks. If the engine is unavailable they become due by themselves, a minute later."""
        try:
            if self._writing:
                await self.settled()
        finally:  # also if cancelled: tasks no longer held back become due by themselves
            self.ended = True
            given_up = self._give_up_sessions() if self.joining else ()
            self.buffers.clear()  # each refers to this: a cycle for the garbage collector
            self.client.holding.discard(self)
        held, self.held = self.held, []
        if held:
            await self._publish(held)
        for clean_up in given_up:
            await clean_up()

    def _give_up_sessions(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """Drop calls that still wait for a session's commit. Return their clean-up functions."""
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
        return [one.clean_up for one in joining if one.clean_up and one.standing in WHY_NOT]

    async def _publish(self, held: Sequence[HeldBack]) -> None:
        try:
            if left := self.client.start_held(held):  # most are leased to this process
                await self.client.publish(left)
        except EngineUnavailable as error:
            telemetry.engine_trouble("publish a request's tasks, which start within a minute", error, timedelta())


def _held_back(new: NewTask, task: Task) -> HeldBack:
    if not (new.run_at or new.wait):  # the usual case
        return HeldBack(task.lease)
    asked = asked_for(new, task.created_at)
    if asked <= task.created_at:
        return HeldBack(task.lease)
    due = None if new.run_at or new.wait is None else monotonic() + new.wait.total_seconds()
    return HeldBack(task.lease, asked, due)


def in_line(calls: Iterable[UnstoredCall], request: RequestTasks, *, held: bool | None = None) -> Iterator[NewTask]:
    """Make the tasks of calls. Each is the successor of the one before it, except for calls outside the chain.

    ``held`` says whether they wait until they are published; by default as the request does.
    """
    last, held = request.last, request.holds if held is None else held
    for call in calls:
        after = last if call.chained else None
        yield call.new_task(request.client, origin=request.origin, after=after, held=held, answered=request.answered)
        last = call.id if call.chained else last


def origin() -> str | None:
    """Return the current request, as ``POST /signup``; None outside a request."""
    asked_by = request_tasks.get()
    return asked_by.origin if asked_by else None


request_tasks: ContextVar[RequestTasks | None] = ContextVar("afterwards_request_tasks", default=None)
"""The tasks of the current request."""
