"""Task functions that run in processes of their own. They find each other by files, for they share no memory."""

import asyncio
import atexit
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from afterwards import Cancel, Retry, RetryAfter, Snooze, TaskContext, progress, task

loaded_in = os.getpid()


def wait_for(file: str) -> None:
    deadline = time.monotonic() + 30
    while not Path(file).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@task(run_in="process")
def add(a: int, b: int = 2) -> int:
    return a + b


@task(run_in="process")
def pid() -> int:
    return os.getpid()


@task(run_in="process")
def write_pid_and_wait(file: str, go: str) -> int:
    Path(file).write_text(f"{os.getpid()}\n")
    wait_for(go)
    return os.getpid()


@task(run_in="process", timeout=2)
def write_pid_and_hang(file: str) -> None:
    Path(file).write_text(f"{os.getpid()}\n")
    time.sleep(60)


@task(run_in="process", timeout=60)
def describe(ctx: TaskContext) -> dict[str, Any]:
    assert ctx.deadline is not None
    return {
        "id": ctx.id,
        "name": ctx.name,
        "attempt": ctx.attempt,
        "enqueued_at": ctx.enqueued_at.isoformat(),
        "seconds": (ctx.deadline - ctx.enqueued_at).total_seconds(),
    }


@task(run_in="process")
def show_progress(go: str) -> None:
    with progress(total=100, desc="rows") as bar:
        bar.update(40)
        bar.update(2)
        wait_for(go)
        for _ in range(58):
            bar.update()


@task(run_in="process")
def stop_when_asked(file: str, ctx: TaskContext) -> None:
    Path(file).write_text("began\n")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            ctx.check_cancelled()
        except Cancel as cancel:
            Path(file).write_text(f"told: {cancel.reason}\n")
            raise
        time.sleep(0.005)


@task(run_in="process")
def read_address_zero() -> None:
    ctypes.string_at(0)


@task(run_in="process")
def leave(status: int) -> None:
    os._exit(status)


@task(run_in="process", retries=Retry(1, wait=0))
def die_once(file: str) -> str:
    if not Path(file).exists():
        Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@task(run_in="process", retries=Retry(3, wait=0), rerun_after_crash=False)
def die_and_stay_dead() -> None:
    os._exit(1)


class OutOfPaper(Exception):
    """An error of the application's own."""


class OutOfInk(OutOfPaper):
    pass


@task(run_in="process", retries=Retry(1, wait=0, on=OutOfPaper, never=OutOfInk))
def print_out(what: str) -> None:
    raise {"paper": OutOfPaper, "ink": OutOfInk, "else": ValueError}[what](f"no {what}")


@task(run_in="process", retries=1)
def retry_after() -> None:
    raise RetryAfter(1234, "the printer asks for it")


@task(run_in="process")
def snooze() -> None:
    raise Snooze(1234)


@task(run_in="process")
def cancel() -> None:
    raise Cancel("no need")


@task(run_in="process")
def exit_politely() -> None:
    sys.exit(3)


@task(run_in="process")
def hold_the_gil(file: str, length: int) -> bool:
    Path(file).write_text(f"{os.getpid()}\n")
    return re.match(r"(a+)+$", "a" * length + "b") is None


@task(run_in="process")
def give_an_object() -> Any:
    return object()


@task(run_in="process")
def run_a_loop() -> str:
    async def inside() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    return asyncio.run(inside())


@task(run_in="process")
def end_a_program() -> int:
    """A program that is told to end must hear it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as program:
        program.terminate()
        return program.wait(10)


@task(run_in="process")
def stay_deaf() -> str:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(number)
    return "still here"


@task(run_in="process")
def write_at_exit(file: str) -> None:
    atexit.register(lambda: Path(file).write_text("exited"))


@task(run_in="process")
def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()


@task
def in_a_thread() -> int:
    return os.getpid()


@task(run_in="process", timeout=1)
def start_a_program_and_hang(file: str) -> None:
    _start_a_program(file)
    time.sleep(60)


@task(run_in="process")
def start_a_program_and_wait(file: str) -> None:
    _start_a_program(file)
    time.sleep(60)


@task(run_in="process")
def start_a_program_and_crash(file: str) -> None:
    _start_a_program(file)
    os.kill(os.getpid(), signal.SIGSEGV)


def _start_a_program(file: str) -> None:
    """A shell, and what that starts: neither would end by itself."""
    program = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert program.stdout
    Path(file).write_text(program.stdout.readline())


async def _give(text: str) -> str:
    return text


@task(run_in="process")
def return_a_coroutine(text: str) -> Any:
    return _give(text)


@task(run_in="process")
def return_a_coroutine_that_raises() -> Any:
    async def fail() -> None:
        raise LookupError("in the coroutine")

    return fail()


@task(run_in="process")
def return_coroutines_in_lists() -> Any:
    return [[_give("never")]]


@task(run_in="process")
def return_a_generator() -> Any:
    return (number for number in (1, 2))


class Hostile(Exception):
    __module__ = 5  # type: ignore[assignment]  # on purpose
    __qualname__ = "Host\0ile\ud800"

    def __str__(self) -> str:
        raise SystemExit("no text")

    def with_traceback(self, tb: Any) -> Any:
        raise SystemExit("no traceback")


@task(run_in="process")
def raise_hostile() -> None:
    raise Hostile


@task(run_in="process")
def raise_generator_exit() -> None:
    raise GeneratorExit


@task(run_in="process")
def show_what_cannot_be_shown() -> str:
    with progress(total=10**5000) as bar:
        bar.n = bar.desc = Hostile()  # type: ignore[assignment]  # on purpose
        bar.update = None  # type: ignore[assignment,method-assign]  # on purpose
    return "done"


said_in_this_context: ContextVar[list[str]] = ContextVar("said_in_this_context")
said_in_this_context.set(["at the import"])


@task(run_in="process")
def say_in_this_context(text: str) -> list[str]:
    said_in_this_context.get().append(text)
    said_in_this_context.set([*said_in_this_context.get(), str(os.getpid())])
    return said_in_this_context.get()
