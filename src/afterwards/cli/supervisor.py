"""A supervisor of worker processes: it replaces those that die, and passes signals on to all."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

from afterwards.cli.errors import ExitCode
from afterwards.cli.health import Health, serve_health
from afterwards.core.verdict import Verdict
from afterwards.telemetry import log, make_visible

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds of back-off before a dead process is replaced: the first pause, which doubles up to the longest."""

LONG_ENOUGH = 10.0
"""Seconds of life after which the back-off of a process starts again at the first pause."""

REPORT_EVERY, SILENT_AFTER = 1.0, 15.0
"""Seconds between a process's health reports, and seconds without a report after which it counts as hanging."""

REPORTS_TO = "AFTERWARDS_WORKER_REPORTS_TO"
"""The environment variable with the file descriptor for a process's health reports."""


def is_supervised() -> bool:
    """Return whether this process reports to a supervisor."""
    return REPORTS_TO in os.environ


def supervise(
    arguments: Sequence[str], *, processes: int, burst: bool, reload: bool, health: tuple[str, int] | None
) -> ExitCode:
    """Run ``afterwards worker`` in several processes until a signal, or until all have ended. Returns an exit code."""
    make_visible()
    return asyncio.run(_Supervisor(arguments, processes, burst=burst).run(reload=reload, address=health))


class _Supervisor:
    def __init__(self, arguments: Sequence[str], processes: int, *, burst: bool) -> None:
        self._command = [sys.executable, "-m", "afterwards", "worker", *arguments]
        self._processes = [_Supervised(number) for number in range(processes)]
        self._burst = burst
        self._ending = asyncio.Event()
        self._code = ExitCode.DONE

    async def run(self, *, reload: bool, address: tuple[str, int] | None) -> ExitCode:
        health = Health()
        health.live, health.ready = self._live, self._ready
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._pass_on, number)
        async with serve_health(health, address):
            keeping = [asyncio.create_task(self._keep(one, reload=reload)) for one in self._processes]
            watching = asyncio.create_task(self._restart_at_changes()) if reload else None
            await asyncio.gather(*keeping)
            if watching is not None:
                watching.cancel()
        return self._code

    def _pass_on(self, number: int) -> None:
        """Pass a signal on to all processes. From now on none is replaced."""
        self._ending.set()
        for one in self._processes:
            one.signal(number)

    async def _keep(self, one: "_Supervised", *, reload: bool) -> None:
        """Run a process and its replacements, until all are told to end, or a new one would end in the same way.

        With ``reload``, a change of a file may be the one that mends the application or the URL of its store.
        """
        pause = FIRST_PAUSE
        while not self._ending.is_set():
            began = monotonic()
            code = await one.run(self._command)
            if one.restarting.is_set() or self._ending.is_set():
                continue
            if reload and self._is_final(code):
                log.error(f"worker process {one.number + 1} could not start; a new one starts after the next change")
                await self._wait(one, None)
                continue
            if self._is_final(code):
                self._code = max(self._code, ExitCode.UNREACHABLE if code == ExitCode.REFUSED else ExitCode(code))
                one.stays_ended(code)
                return
            pause = FIRST_PAUSE if monotonic() - began > LONG_ENOUGH else min(2 * pause, LONGEST_PAUSE)
            log.error(f"worker process {one.number + 1} {_ended(code)}; a new one starts in {pause:g} s")
            await self._wait(one, pause)

    def _is_final(self, code: int) -> bool:
        """Return True if a new process would end in the same way."""
        if code == ExitCode.REFUSED:  # a store that has let a process in may do so again
            return not any(one.has_been_ready for one in self._processes)
        if code == ExitCode.DONE:  # without a burst, somebody has told this process alone to end
            return self._burst
        return code == ExitCode.USAGE

    async def _wait(self, one: "_Supervised", pause: float | None) -> None:
        """Wait for a change of a file or for the end, at most ``pause`` seconds."""
        waiting = {asyncio.create_task(event.wait()) for event in (one.restarting, self._ending)}
        try:
            await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    async def _restart_at_changes(self) -> None:
        from watchfiles import PythonFilter, awatch

        async for changes in awatch(Path.cwd(), watch_filter=PythonFilter()):
            names = sorted({Path(path).name for _, path in changes})
            log.info(f"{', '.join(names[:3])} changed: restarting the worker")
            for one in self._processes:
                one.restart()

    async def _live(self) -> Verdict:
        return _all(one.live() for one in self._processes)

    async def _ready(self) -> Verdict:
        return _all(one.ready() for one in self._processes)


class _Supervised:
    """One of the supervised processes, and those that replace it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.restarting = asyncio.Event()  # a file has changed since the process was started
        self._process: asyncio.subprocess.Process | None = None
        self._to_send: int | None = None  # a signal that arrived while the process was being started
        self._reported_at = monotonic()
        self._report = {"live": True, "ready": False, "reason": "starting"}
        self.has_been_ready = False  # this process, or one before it

    async def run(self, command: Sequence[str]) -> int:
        """Run one process to its end. Returns its exit code, or the negative number of the signal that killed it."""
        self.restarting.clear()
        self._to_send = None
        self._reported_at = monotonic()
        ours, theirs = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=os.environ | {REPORTS_TO: str(theirs)},
                pass_fds=[theirs],
                start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor, which passes it on
            )
        finally:
            os.close(theirs)
        if self._to_send is not None:
            self.signal(self._to_send)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self._read, ours)
        try:
            return await self._process.wait()
        finally:
            loop.remove_reader(ours)
            os.close(ours)
            self._process = None
            self._report = {"live": True, "ready": False, "reason": "ended, and will be restarted"}

    def stays_ended(self, code: int) -> None:
        self._report = {"live": True, "ready": False, "reason": f"{_ended(code)}, and is not replaced"}

    def restart(self) -> None:
        """Terminate the process; a new one replaces it at once."""
        self.restarting.set()
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        self._to_send = number
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def live(self) -> Verdict:
        silent = monotonic() - self._reported_at
        if self._process is not None and silent > SILENT_AFTER:
            return Verdict(False, f"process {self.number + 1}: silent for {silent:.0f} s")
        return self._verdict("live")

    def ready(self) -> Verdict:
        alive = self.live()
        return self._verdict("ready") if alive.well else alive

    def _verdict(self, kind: str) -> Verdict:
        return Verdict(bool(self._report[kind]), f"process {self.number + 1}: {self._report['reason']}")

    def _read(self, descriptor: int) -> None:
        lines = os.read(descriptor, 65536).splitlines()
        if lines:
            self._reported_at = monotonic()
            with suppress(ValueError):  # the rest of a long line arrives with the next read
                self._report = json.loads(lines[-1])
                self.has_been_ready |= bool(self._report["ready"])


async def report(health: Health) -> None:
    """Report this process's health to its supervisor until cancelled. Without a supervisor it returns at once."""
    descriptor = os.environ.get(REPORTS_TO)
    if descriptor is None:
        return
    while True:
        live, ready = await health.live(), await health.ready()
        line = json.dumps({"live": live.well, "ready": ready.well, "reason": (ready if live.well else live).reason})
        try:
            os.write(int(descriptor), line.encode() + b"\n")
        except OSError:  # the supervisor was killed, so nothing would end this process
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await asyncio.sleep(REPORT_EVERY)


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the first bad verdict, else the last one."""
    verdict = Verdict(True, "")
    for verdict in verdicts:
        if not verdict.well:
            break
    return verdict


def _ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
