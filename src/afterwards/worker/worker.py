"""The worker: claims as many tasks as it has free slots, runs them, and hands over how they ended."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Self

from afterwards import telemetry
from afterwards.core.lifecycle import HOLD, Cancelled, Outcome, Raised, Released, Settled, Snoozed, Succeeded
from afterwards.core.options import Options, RunIn
from afterwards.core.task import FailedTask, FailureKind, Lease, State, Task
from afterwards.engine import Claim, Engine, Held
from afterwards.execution.attempt import Surroundings, Tell, attempt, settle, tell_plainly
from afterwards.execution.function import Functions, Runnable, options_of
from afterwards.execution.health import Health
from afterwards.execution.retrying import keep_running, persist
from afterwards.execution.threads import made_from_here
from afterwards.worker.chain_lengths import Links
from afterwards.worker.claimer import Claims
from afterwards.worker.finisher import Settler
from afterwards.worker.fresh_context import Context
from afterwards.worker.heartbeat import Heart
from afterwards.worker.leased_task import UNTRIED, Running
from afterwards.worker.loop_watchdog import Watch
from afterwards.worker.maintenance import Upkeep
from afterwards.worker.racing import first
from afterwards.worker.registration import Attendance
from afterwards.worker.scheduler import Scheduler, Timetable
from afterwards.worker.set_aside import SecondLook
from afterwards.worker.slots import Slots

LONG_FOR_A_REQUEST, LONG_FOR_A_SLOT = 1.0, 0.25
"""Seconds between two looks at what is leased here and has not started; what is seen twice may begin elsewhere."""

LAST_WORDS = 1.0
"""Seconds that cancelled attempts have to clean up at the end of a shutdown."""

CLEANING_UP = 4.0
"""Seconds that an attempt may take to clean up, once it was cancelled, before it is cancelled again."""

CLAIMING, SETTLING, ATTENDING, SCHEDULING = "claim tasks", "store how tasks ended", "sign in", "fire schedules"
"""Parts of a worker that others ask for."""

A_MOMENT = 0.1
"""Seconds until a part that was cancelled from outside is started again."""

LAST_WRITES = 5.0
"""Seconds that an engine in trouble may keep a shutdown; what it did not store by then, its leases' end will."""


class Worker:
    """Runs tasks in this process, on the event loop that enters it."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        surroundings: Surroundings,
        *,
        tell: Tell,
        timetable: Timetable = tuple,
        clock: Callable[[], datetime],
        health: Health | None = None,
    ) -> None:
        self._health = health or Health()
        self.id = uuid.uuid4().hex  # new for every start: a restarted process is another worker
        self._engine = engine
        self._functions = functions
        self._options = options
        self._surroundings = surroundings
        self._tell = tell
        self._clock = clock
        self._leased: dict[Lease, Running] = {}
        self._slots: Slots[Running] = Slots(options.slots)
        self._draining = asyncio.Event()
        self._claims = Claims(
            *(engine, functions, options, self._slots),
            worker=self.id,
            take=lambda tasks: self._launch(*map(self._take, tasks)),
            give_back=self._give_back_untried,
            draining=self._draining,
            health=self._health,
        )
        self._hurry = asyncio.Event()
        self._settler = Settler(engine, self._stored, self._health)
        self._links = Links()
        self._heart = Heart(engine, options.lease, self._leases, self._heard, self._health)
        self._note = self._heart.note  # bound once
        self._watch = Watch(self._name_of, lambda: bool(self._attempts))
        self._attendance = Attendance(engine, self.id, functions, options, clock=clock)
        self._upkeep = Upkeep(
            *(engine, functions, options),
            tell=tell,
            told=self._begin_telling,
            clock=clock,
            health=self._health,
            holds=lambda: tuple(self._leased),
            probe=self._attendance.sign_in,
            jumped=self._heart.hurry,
        )
        self._second_look = SecondLook(engine, functions, self._claims.bring_back)
        self._scheduler = Scheduler(engine, timetable, clock=clock)
        self._attempts: dict[asyncio.Task[None], Running] = {}
        self._begun: set[asyncio.Task[None]] = set()  # the event loop itself keeps no task alive
        self._abandoned: set[asyncio.Task[None]] = set()  # as above
        self._parts: dict[str, asyncio.Task[None]] = {}  # what the worker does beside the attempts, by what that is
        self._ends = False  # its parts are not started again; what is left is only what could not be stopped
        self._leaving: asyncio.Task[None] | None = None
        self._signed_out = False

    async def __aenter__(self) -> Self:
        self._context = Context()
        self.loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            await self._heart.start()
            stack.push_async_callback(self._let_the_heart_stop)
            await stack.enter_async_context(self._watch)
            self._loops = await stack.enter_async_context(asyncio.TaskGroup())
            self._start(CLAIMING, self._claims.run)
            self._start(SETTLING, self._settler.run)
            self._start("keep the store in order", self._upkeep.run)
            self._start("look again at what was set aside", self._second_look.run)
            self._start("give back what waits", partial(self._give_back_the_slow, LONG_FOR_A_REQUEST, held=True))
            self._start("give back what is slow", partial(self._give_back_the_slow, LONG_FOR_A_SLOT, held=False))
            self._start("stop what does not end", self._abandon_the_stubborn)
            self._start(ATTENDING, self._attendance.run)
            if self._scheduler.needed:
                self._start(SCHEDULING, self._scheduler.run)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain, give what still runs after the grace period back, store how everything ended."""
        if not self._draining.is_set():
            self.drain()
        await asyncio.wait([self._releasing])
        await self._give_back()
        await first(self._leave_all_stored(), timeout=LAST_WRITES)
        await self._let_go_of_the_stubborn()
        self._ends = True
        for part in (*self._parts.values(), self._leaving):
            if part is not None:
                part.cancel()
        self._surroundings.close()
        await self._stack.__aexit__(None, None, None)
        await self._surroundings.ended()

    def drain(self) -> None:
        """Claim and fire nothing more, and give back what runs when the grace period is over; a second call ends that.

        Called on the event loop. From the signal to the end of the lifespan it may be long: clients stay connected.
        """
        if self._draining.is_set():
            self._hurry.set()
            return
        self._draining.set()
        if SCHEDULING in self._parts:
            self._parts.pop(SCHEDULING).cancel()
        for running in list(self._slots.ready):
            self._end(running, UNTRIED)
        self._releasing = self._loops.create_task(self._release())
        if self._leased:
            telemetry.draining(len(self._leased), self._options.grace)

    def _start(self, doing: str, run: Callable[[], Awaitable[None]]) -> None:
        """Begin a part of the worker, which is begun again whenever it fails, or is cancelled from outside."""

        def ended(part: "asyncio.Task[None]") -> None:
            if part.cancelled() and self._parts.get(doing) is part and not self._ends:
                self.loop.call_later(A_MOMENT, again)  # which never comes if the event loop ends: that cancels all, too

        def again() -> None:
            if doing in self._parts and not self._ends:
                telemetry.ended_early(doing)
                self._start(doing, run)

        part = self._parts[doing] = self._loops.create_task(keep_running(doing, run, self._health), name=doing)
        part.add_done_callback(ended)

    # What senders of this process ask for (client.LocalWorker).

    def offer(self, tasks: int) -> Claim | None:
        most = 0 if self._draining.is_set() else self._slots.hold_some(tasks)
        return self._claims.claim(most) if most else None

    def hold(self, leased: Sequence[Task], offered: Claim) -> None:
        new = [task for task in leased if task.lease not in self._leased]  # a call may be stored twice, and runs once
        if len(new) < offered.limit:
            self._slots.hold(len(new) - offered.limit)
        for task in new:
            self._take(task).held = True

    def start(self, lease: Lease) -> bool:
        running = self._leased.get(lease)
        if running is None:
            return False
        if running.ended:  # given back, which is being stored: published as soon as it is
            running.published = True
            return True
        self._slots.hold(-1)
        running.held = False
        self._launch(running)
        return True

    def stop(self, task: Task) -> None:
        """Stop a task of this worker that somebody asked to cancel."""
        running = self._leased.get(task.lease)
        if running and task.cancel_requested is not None:
            self._stop(running, Cancelled(task.cancel_requested))

    def expect(self, tasks: int) -> None:
        self._claims.expect(tasks)

    # Running.

    def _take(self, task: Task) -> Running:
        lease = task.lease
        running = self._leased[lease] = Running(task, lease, self._functions.get(task.name), self._note, self._lend)
        if task.suspect:
            self._claims.suspect_began(lease)
        return running

    def _leases(self) -> Sequence[Lease]:
        """The leases to be renewed. Called in the heart's thread."""
        for lease, running in list(self._leased.items()):
            if (running.left and not running.in_thread) or (self._ends and running.ended):
                self._leased.pop(lease, None)
        return tuple(self._leased)

    def _leave(self, lease: Lease) -> Running | None:
        """Its end is stored, or is nobody's business here any more."""
        self._claims.suspect_ended(lease)
        return self._leased.pop(lease, None)

    def _launch(self, *ready: Running) -> None:
        """Start them, each once a slot is free; a worker that drains gives them back."""
        self._slots.ready.extend(ready)
        if not self._draining.is_set():
            self._fill()
            return
        for running in ready:
            self._end(running, UNTRIED)

    def _fill(self) -> None:
        slots = self._slots
        while slots.ready and (running := slots.next()):
            # Kept alive by the dictionary, for the event loop does not. A task group would wait for a function that
            # will not be cancelled, and hold up the end.
            running.asyncio_task = self.loop.create_task(self._attempt(running), context=self._context.fresh())
            self._attempts[running.asyncio_task] = running
            self._watch.begin()

    @contextmanager
    def _lend(self, running: Running) -> Iterator[None]:
        """Let others have the slot of an attempt that waits for another task's result, which may need one to begin."""
        here = asyncio.get_running_loop() is self.loop  # else it is one that a function runs in its thread
        change = (lambda do: do()) if here else self.loop.call_soon_threadsafe
        change(partial(self._give_slot, running))
        try:
            yield
        finally:
            with suppress(RuntimeError):  # the loop is closed
                change(partial(self._take_slot_back, running))

    def _give_slot(self, running: Running) -> None:
        if running.ended or running.lent or not self._slots.lend():
            return
        running.lent = True
        running.lent_thread = running.in_thread
        self._surroundings.threads.lend(int(running.lent_thread))
        self._claims.freed.set()
        self._fill()

    def _take_slot_back(self, running: Running) -> None:
        if running.lent:
            running.lent = False
            self._slots.take_back()
            self._surroundings.threads.lend(-int(running.lent_thread))

    def _begin(self, doing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        begun = self.loop.create_task(doing, context=self._context.fresh())
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)
        return begun

    async def _attempt(self, running: Running) -> None:
        running.begun, running.began = True, self.loop.time()
        running.calls = made_from_here() if running.may_use_threads else ()
        outcome: Outcome
        try:
            outcome = await attempt(running.function, running.task, self._surroundings, running)
        except asyncio.CancelledError as error:
            released = Released(begun=running.may_have_begun)
            outcome = running.stop or (released if self._all_is_ending else Raised(error=error))
        except BaseException as error:  # nothing may leave an attempt without its end
            if not self.loop.is_running():  # this coroutine is closed, and so is all of the worker
                raise
            outcome = Raised(error=error)
        if running.stop and not isinstance(outcome, Succeeded):
            outcome = running.stop
        if running.in_thread and not self._all_is_ending:  # somebody else cancelled this
            self._begin(self._end_with_its_thread(running, outcome))
            return
        if running.in_thread:  # at the end of the event loop, for example
            running.left = True
            telemetry.still_running(running.task)
            return
        self._end(running, outcome)
        if self._ends:
            await self._settler.store()
            self._heart.look()

    async def _end_with_its_thread(self, running: Running, outcome: Outcome) -> None:
        """Keep slot and lease of what goes on in a thread, although its coroutine is gone."""
        while running.in_thread:  # noqa: ASYNC110  # nobody awaits the call any more, so that no event tells of its end
            await asyncio.sleep(A_MOMENT)
        self._end(running, outcome)

    @property
    def _all_is_ending(self) -> bool:
        """Whether the worker drains, or everything is cancelled, as by a server that is forced to end."""
        settling = self._parts[SETTLING]
        return self._draining.is_set() or settling.done() or settling.cancelling() > 0

    def _end(self, running: Running, outcome: Outcome) -> None:
        """Free the slot, and have the end stored."""
        if running.ended:
            return
        running.ended = True
        self._free(running)
        if running.lost:
            self._leave(running.lease)
            return
        settled, running.tell = settle(
            running.function,
            running.task,
            outcome,
            worker=self.id,
            clock=self._clock,
            tell=self._tell,
            progress=running.asked.shown() if running.asked else None,
        )
        self._settler.add(settled, at_once=self._links.is_long(running.task))

    def _free(self, running: Running) -> None:
        if running.asyncio_task:
            self._attempts.pop(running.asyncio_task, None)
            if running.lent:
                self._take_slot_back(running)
            self._slots.leave()
            self._fill()
        elif running.held:
            self._slots.hold(-1)
        else:
            self._slots.ready.remove(running)
        self._claims.freed.set()

    def _stored(self, batch: Sequence[Settled]) -> None:
        for settled in batch:
            running = self._leave(settled.lease)
            if running and running.tell:
                self._begin_telling(running.function, running.tell)
            if running and running.published and settled.state is State.SCHEDULED:
                self._begin(self._publish(settled.lease))

    def _begin_telling(self, function: Runnable, failed: FailedTask) -> None:
        self._begin(tell_plainly(function, failed, self._surroundings.threads))

    async def _publish(self, lease: Lease) -> None:
        await persist("publish a task", partial(self._engine.publish, [(lease, None)]))

    # Stopping.

    def _stop(self, running: Running, outcome: Outcome, *, at_once: bool = False) -> None:
        """Cancel an attempt. What is at work in a thread cannot be stopped, and goes on; it is told to end.

        The same for a process, which is killed a moment later, or ``at_once``.
        """
        running.stop = running.stop or outcome
        if running.stopped is None:
            running.stopped = self.loop.time()
        running.tell_to_stop()
        if running.asyncio_task is None or not running.begun:
            self._end(running, outcome)
        elif not at_once and running.function.run_in is RunIn.PROCESS:
            return
        if running.asyncio_task and running.drop_calls():
            running.asyncio_task.cancel()

    def _heard(self, asked: Sequence[Lease], held: Sequence[Held]) -> None:
        """What the heartbeat brought back: leases that are lost, tasks that somebody wants to stop."""
        ours = {one.lease for one in held}
        for lease in asked:
            running = self._leased.get(lease)
            if running and not running.ended and not running.lost and lease not in ours:
                telemetry.lease_gone(running.task)
                running.lost = True
                self._stop(running, Released())
        for one in held:
            running = self._leased.get(one.lease)
            if running and one.cancel_requested is not None:
                self._stop(running, Cancelled(one.cancel_requested))

    def _give_back_untried(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            running = self._leased.get(task.lease)
            if running and running.asyncio_task is None:
                self._end(running, UNTRIED)

    async def _give_back_the_slow(self, pause: float, *, held: bool) -> None:
        """What waits long for the end of its request (held) or for a slot is scheduled like any other's."""
        seen: set[Running] = set()
        while True:
            await asyncio.sleep(pause)
            unstarted = (one for one in self._leased.values() if one.asyncio_task is None and not one.ended)
            waiting = {one for one in unstarted if one.held is held}
            for running in waiting & seen:
                self._end(running, _untried(running))
            seen = waiting

    async def _abandon_the_stubborn(self) -> None:
        """Cancel a second time what swallowed its cancellation, and end it without its consent if it swallows that."""
        asked: set[Running] = set()
        while True:
            await asyncio.sleep(LAST_WORDS)
            now = self.loop.time()
            stubborn = {one for one in self._attempts.values() if _overdue(one, now)}
            for running in stubborn:
                if running in asked:
                    self._abandon(running)
                elif running.asyncio_task:
                    running.asyncio_task.cancel()
            asked = stubborn

    def _abandon(self, running: Running) -> None:
        """End an attempt that goes on all the same. There is no next one, which would run beside it."""
        assert running.asyncio_task is not None
        self._abandoned.add(running.asyncio_task)
        running.asyncio_task.add_done_callback(self._abandoned.discard)
        outcome = running.stop or _timed_out(running)
        ends = "cancelled" if isinstance(outcome, Cancelled) else "failed"
        telemetry.left_running(running.task, None if running.lost else ends)
        self._end(running, outcome)

    async def _release(self) -> None:
        """Give back what still runs when the grace period is over, or at the second signal; then sign out.

        From then on nothing counts as a crash, should the process be killed because a client stays connected.
        """
        if self._attempts:
            ended = asyncio.wait(list(self._attempts))
            await first(ended, self._hurry.wait(), timeout=self._options.grace.total_seconds())
        await self._give_back()
        self._leaving = self._loops.create_task(self._sign_out())

    async def _give_back(self) -> None:
        """Give back what has stopped. What goes on in spite of it keeps its lease: it must not begin elsewhere."""
        for running in list(self._leased.values()):
            if not running.ended and not running.given_back:
                running.given_back = True  # once: a second cancellation would end what it does to clean up
                outcome = Released(begun=running.may_have_begun) if running.asyncio_task else _untried(running)
                self._stop(running, outcome, at_once=True)
        if stopping := [attempt for attempt in self._attempts if attempt.cancelling()]:
            await asyncio.wait(stopping, timeout=LAST_WORDS)
        for running in self._attempts.values():
            if not running.told:
                running.told = True
                telemetry.still_running(running.task)

    async def _let_go_of_the_stubborn(self) -> None:
        """Let what cleans up do so for a while, and have the end of the event loop wait for nothing that is left.

        `asyncio.run` cancels all tasks and waits for them: for ever, for one that swallows each cancellation.
        """
        now = self.loop.time()
        alive = {stopping: until for stopping, one in self._attempts.items() if (until := _cleans_up_until(one))}
        if alive and (pause := max(alive.values()) - now) > 0:
            await first(asyncio.wait(alive), self._hurry.wait(), timeout=pause)
        for left in (*alive, *self._abandoned):
            if not left.done():
                asyncio._unregister_task(left)

    async def _let_the_heart_stop(self) -> None:
        """At the end: what could not be stopped keeps its lease for as long as it goes on."""
        try:
            if self._leases():
                await self._engine.__aenter__()  # until the heart leaves it
                self._heart.stay()
        finally:
            self._heart.stop()

    async def _all_stored(self) -> None:
        await asyncio.wait([self._parts[CLAIMING]])  # what it claimed while the drain began has been given back
        if self._parts[SETTLING].done():  # a server that is forced to end cancels everything, and us as well
            await self._settler.store()
        await self._settler.settled()

    async def _sign_out(self) -> None:
        await self._all_stored()
        if attending := self._parts.pop(ATTENDING, None):
            attending.cancel()
        await persist("sign out", self._attendance.sign_out)
        self._signed_out = True

    async def _leave_all_stored(self) -> None:
        if self._leaving is not None:
            await asyncio.wait([self._leaving])
        if not self._signed_out:  # it was cancelled, as all was
            await self._sign_out()
        await self._all_stored()

    def _name_of(self, asyncio_task: "asyncio.Task[Any]") -> str | None:
        running = self._attempts.get(asyncio_task)
        return f"task {running.task.name} ({running.task.id})" if running else None


def _overdue(running: Running, now: float) -> bool:
    """Whether an attempt should have ended so long ago that it has had time to clean up.

    Not what is given back, or has a thread at work: that would begin elsewhere while it goes on here.
    """
    given_back = isinstance(running.stop, Released) and not running.lost
    if not running.function.is_async or given_back or running.in_thread:
        return False
    timeout = options_of(running.function, running.task).timeout
    ends = inf if timeout is None else running.began + timeout.total_seconds()
    stopped = inf if running.stopped is None else running.stopped
    return running.begun and now > min(ends, stopped) + CLEANING_UP


def _cleans_up_until(running: Running) -> float | None:
    """How long one that was told to end may clean up; None for what a thread is at work on, or has not been told."""
    return None if running.stopped is None or running.in_thread else running.stopped + CLEANING_UP


def _timed_out(running: Running) -> Raised:
    timeout = options_of(running.function, running.task).timeout
    assert timeout is not None
    error = TimeoutError(
        f"took longer than its timeout of {timeout.total_seconds():g} s, and goes on although it was cancelled twice"
    )
    return Raised(error=error, kind=FailureKind.TIMED_OUT, final=True)


def _untried(running: Running) -> Outcome:
    """As what a task that has not started is given back."""
    return Snoozed(HOLD, called=False) if running.held else UNTRIED
