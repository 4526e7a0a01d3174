"""Processes for ``run_in="process"`` functions: started when needed, kept for further tasks, killed if they must be."""

import asyncio
import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from afterwards import telemetry
from afterwards.core.errors import AfterwardsError, ProcessDied
from afterwards.core.lifecycle import Outcome, Raised
from afterwards.core.progress import Progress
from afterwards.core.shortage import Shortage, beginning, is_shortage
from afterwards.core.task import FailureKind, Task
from afterwards.execution import process_messages
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Runnable, options_of
from afterwards.execution.process_messages import Message, Pipe

if TYPE_CHECKING:  # no cycle: who has no such function does not load it
    from multiprocessing.context import SpawnProcess

IDLE = timedelta(minutes=1)
"""How long a process is kept for the next task."""

GRACE = 1.0
"""Seconds that a function has to notice that its task was cancelled, before its process is killed."""

BEGINNING = 60.0
"""Seconds that a process may take until the function begins: it imports the application first."""

ENDING = 3.0
"""Seconds that a process that is not needed any more may take to end, with its exit handlers."""

NAME = "afterwards-process-"

Main = Callable[[Pipe], None]
"""What a process does; a function of a module, which the process imports."""


class Processes:
    """At most ``size`` processes, beside the threads. ``run`` and ``close`` are called on one event loop."""

    def __init__(self, size: int, main: Main, *, idle: timedelta = IDLE) -> None:
        self._main = main
        self._free = asyncio.Semaphore(size)
        self._idle_for = idle
        self._idle: list[Keeper] = []  # the last one first, so that those that are too many end
        self._closed = False
        self._living: set[Keeper] = set()
        self._none_lives = asyncio.Event()

    async def run(self, function: Runnable, context: TaskContext) -> Outcome:
        """Run the function in a process. Cancelled, it is killed; told to stop through the context, a moment later.

        Raises Shortage when there is none, and none could be started.
        """
        async with self._free:
            context.check_cancelled()
            with beginning("start a process"):
                keeper = self._idle.pop() if self._idle else self._new()
            try:
                outcome = await self._ask(keeper, function, context)
            finally:
                self._put_back(keeper)
            if isinstance(outcome, Raised) and isinstance(outcome.error, Shortage):
                raise outcome.error
            return outcome

    def close(self) -> None:
        """Let the processes end after what they do now."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()

    async def ended(self) -> None:
        """Wait until they have ended, so that their exit handlers run before the server is gone."""
        if self._living:
            await self._none_lives.wait()

    def _new(self) -> "Keeper":
        later = asyncio.get_running_loop().call_soon_threadsafe
        keeper = Keeper(
            self._main,
            self._idle_for,
            retire=lambda keeper: later(self._retire, keeper),
            ended=lambda keeper: later(self._forget, keeper),
        )
        self._living.add(keeper)
        self._none_lives.clear()
        return keeper

    async def _ask(self, keeper: "Keeper", function: Runnable, context: TaskContext) -> Outcome:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        deadline: list[asyncio.TimerHandle] = []

        def stop(reason: str) -> None:
            keeper.tell(process_messages.stop(context.task, reason))
            deadline.append(loop.call_later(GRACE, keeper.kill))

        context.on_stop(stop)
        keeper.ask(Request(function, context, lambda outcome: loop.call_soon_threadsafe(_answer, answer, outcome)))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            keeper.kill()
            await asyncio.wait([answer], timeout=ENDING)  # until it has ended, the function may still do something
            raise
        finally:
            context.on_stop(None)
            for timer in deadline:
                timer.cancel()

    def _put_back(self, keeper: "Keeper") -> None:
        if keeper.over or self._closed:
            keeper.end()
        else:
            self._idle.append(keeper)

    def _retire(self, keeper: "Keeper") -> None:
        if keeper in self._idle:  # else it has got something to do meanwhile
            self._idle.remove(keeper)
            keeper.end()

    def _forget(self, keeper: "Keeper") -> None:
        self._living.discard(keeper)
        if not self._living:
            self._none_lives.set()


class Request:
    """A call for a process, and what comes back before its outcome."""

    closed = False  # as the progress that is shown

    def __init__(self, function: Runnable, context: TaskContext, answer: Callable[[Outcome], object]) -> None:
        self.task: Task = context.task
        self.call = process_messages.call(function, context.task)
        self.timeout = options_of(function, context.task).timeout
        self.answer = answer
        self._context = context
        self._progress = Progress()

    def show(self, progress: str | None) -> None:
        if progress is not None:
            self._progress = Progress.of_text(progress)
            self._context.show(self)
            self._context.note()

    def progress(self) -> Progress:
        return self._progress


class _Late(Exception):
    """Nothing came from the process in time."""

    def __init__(self, begun: bool) -> None:
        super().__init__()
        self.begun = begun  # whether the function had begun


class Keeper:
    """A process, and the thread that starts it, talks to it and sees it end."""

    def __init__(
        self,
        main: Main,
        idle: timedelta,
        *,
        retire: Callable[["Keeper"], object],
        ended: Callable[["Keeper"], object],
    ) -> None:
        self.over = False  # it takes no further request
        self._busy = False
        self._main = main
        self._idle = idle.total_seconds()
        self._retire = retire  # asks for the end; called in the thread, as the other
        self._ended = ended
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._sending = threading.Lock()
        self._changing = threading.Lock()  # of the process, which may be killed while it is being started
        self._process: SpawnProcess | None = None
        self._name = f"{NAME}{next(_numbers)}"
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def ask(self, request: Request) -> None:
        self._requests.put(request)

    def tell(self, message: Message) -> None:
        """Send something beside the call. Never waits, even if nobody reads."""
        with suppress(RuntimeError):  # the system has no thread left: whoever has to end will be killed
            threading.Thread(target=self._try_to_send, args=(message,), daemon=True).start()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        with self._changing:
            self.over = True
            if self._process is not None:
                _kill(self._process)

    def end(self) -> None:
        """Let the process end by itself, when it is idle."""
        self._requests.put(None)

    def hurry(self) -> None:
        """As `end`, but for what the process does now."""
        self.end()
        if self._busy:
            self.kill()

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process, and after so long make it end."""
        from multiprocessing.connection import wait

        assert self._process is not None
        if not wait([self._process.sentinel], max(0.0, seconds)):
            _kill(self._process)

    def _work(self) -> None:
        while (request := self._next()) is not None:
            self._busy = True
            outcome = self._outcome(request)
            self._busy = False
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
                request.answer(outcome)
            del request  # nothing of the last call stays alive while the process is idle
        self._end()
        with suppress(RuntimeError):  # as above
            self._ended(self)

    def _next(self) -> Request | None:
        while True:
            try:
                return self._requests.get(timeout=self._idle)
            except Empty:
                try:
                    self._retire(self)
                except RuntimeError:  # the loop is closed: nobody will ask any more
                    return None

    def _outcome(self, request: Request) -> Outcome:
        try:
            if self._process is None:
                self._start()
            return self._talk(request)
        except _Late as late:
            self.kill()
            return _too_late(request) if late.begun else _crashed(f"did not begin within {BEGINNING:g} s")
        except (EOFError, OSError) as error:
            self.over = True
            how = self._end(crashed=True)
            if isinstance(error, Shortage) or (how is None and _is_short(error)):
                return Raised(error=Shortage(f"no process could be started: {error}"))
            return _crashed(how or f"could not be started: {error}")
        except BaseException as error:  # a request that nobody answers would keep its slot for ever
            self.kill()
            short = self._process is None and _is_short(error)
            return Raised(error=Shortage(f"no process could be started: {error}") if short else error)

    def _start(self) -> None:
        from multiprocessing import get_context

        spawning = get_context("spawn")
        self._pipe: Pipe
        self._pipe, theirs = spawning.Pipe()
        process = spawning.Process(target=self._main, args=(theirs,), name=self._name, daemon=True)
        with _starting, _signals_held_back():
            process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        with self._changing:
            self._process = process
            if self.over:
                _kill(process)
        _alive.add(self)
        atexit.unregister(_end_all)
        atexit.register(_end_all, os.getpid())
        ready = self._receive(monotonic() + BEGINNING, begun=False)
        if "short" in ready:
            raise Shortage(ready["short"])

    def _talk(self, request: Request) -> Outcome:
        self._send(request.call)
        begun = False
        until: float | None = monotonic() + BEGINNING
        while True:
            message = self._receive(until, begun=begun)
            if "began" in message:
                begun, until = True, _end_of(request.timeout)
            request.show(message.get("progress"))
            if "ended" in message:
                if message.get("lost"):
                    telemetry.result_not_stored(request.task, AfterwardsError(message["lost"]))
                return process_messages.outcome(message)

    def _receive(self, until: float | None, *, begun: bool) -> Message:
        if not self._pipe.poll(None if until is None else max(0.0, until - monotonic())):
            raise _Late(begun)
        return process_messages.unpacked(self._pipe.recv_bytes())

    def _send(self, message: Message) -> None:
        with self._sending:
            self._pipe.send_bytes(process_messages.packed(message))

    def _try_to_send(self, message: Message) -> None:
        with suppress(OSError, AttributeError):  # it has ended, or has not begun
            self._send(message)

    def _end(self, *, crashed: bool = False) -> str | None:
        """See the process end, and say how; None if there is none. It may be called again.

        What the function of one that crashed has started ends with it.
        """
        self.over = True
        if self._process is None:
            return None
        with self._sending:
            self._pipe.close()
        self.wait(ENDING)
        if crashed:
            _kill_programs(self._process)
        with _starting:
            self._process.join()
        _alive.discard(self)
        return _how(self._process.exitcode)


def _kill(process: "SpawnProcess") -> None:
    """Kill a process, and the programs that its function has started."""
    _kill_programs(process)
    process.kill()


def _kill_programs(process: "SpawnProcess") -> None:
    """Kill the group that a process leads: nobody else's, for no other gets its id as long as the group has members."""
    if hasattr(os, "killpg") and process.pid is not None:
        with suppress(
            ProcessLookupError, PermissionError
        ):  # none is left, or it has not come so far as to have a group
            os.killpg(process.pid, signal.SIGKILL)


def _answer(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _end_of(timeout: timedelta | None) -> float | None:
    return None if timeout is None else monotonic() + timeout.total_seconds()


def _too_late(request: Request) -> Raised:
    assert request.timeout is not None
    seconds = request.timeout.total_seconds()
    error = TimeoutError(f"took longer than its timeout of {seconds:g} s, and its process was killed")
    return Raised(error=error, kind=FailureKind.TIMED_OUT)


def _is_short(error: BaseException) -> bool:
    """Whether the system had nothing left to start a process with."""
    return isinstance(error, BlockingIOError) or is_shortage(error)


def _crashed(how: str) -> Raised:
    return Raised(error=ProcessDied(f"the process of the function {how}"), kind=FailureKind.CRASHED)


def _how(exitcode: int | None) -> str:
    """How a process ended, as the end of a sentence."""
    if exitcode is None:  # somebody else has asked the system, which says it once
        return "ended, nobody knows how"
    if exitcode >= 0:
        return f"ended with exit status {exitcode} before the function did; standard error may say why"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Meanwhile a process begins with Ctrl-C and SIGTERM blocked, until it knows what to do about them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_all(pid: int) -> None:
    """At the end of the interpreter, before `multiprocessing` waits for its processes, which ignore its SIGTERM."""
    if os.getpid() != pid:
        return  # a fork of the server
    for keeper in list(_alive):
        keeper.hurry()
    until = monotonic() + ENDING
    for keeper in list(_alive):
        keeper.wait(until - monotonic())


_numbers = count(1)
_starting = threading.Lock()  # `multiprocessing` looks after its processes without one
_alive: set[Keeper] = set()
