"""Serve an application with uvicorn as in production: uvloop, httptools, one process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from benchmarks.tasks import url

START_TIMEOUT = 20.0
"""Seconds that a server has to start."""

COUNTED = "fsync,fdatasync"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    port: int
    pid: int
    store: str  # the URL of its tasks, if it stores any

    def memory(self) -> float:
        """Return the proportional set size in MiB."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert found
        return int(found[1]) / 1024


@contextmanager
def served(app: str, store: str = "", *, before: Sequence[str] = ()) -> Iterator[Server]:
    """Serve ``benchmarks.apps.<app>``, optionally under another command such as strace."""
    port = _free_port()
    command = [*before, sys.executable, "-m", "uvicorn", f"benchmarks.apps.{app}:app", "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    environment = os.environ | {"AFTERWARDS_URL": store}
    with subprocess.Popen([*command, *quiet], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(port, process)
            yield Server(port, process.pid, store)
        finally:
            process.send_signal(signal.SIGTERM)


def can_count_syncs() -> bool:
    return shutil.which("strace") is not None


@contextmanager
def counting_syncs(file: Path) -> Iterator[tuple[Server, list[int]]]:
    """Serve the durable application under strace. After its end the list holds its number of disk syncs."""
    report, syncs = file.with_suffix(".strace"), list[int]()
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-c", "-e", f"trace={COUNTED}", "-o", str(report)]
    with served("durable", url(file), before=strace) as server:
        yield server, syncs
    syncs.append(sum(map(_calls, _once_written(report).splitlines())))


def _once_written(report: Path) -> str:
    """Return the text of a file that strace writes when the server has ended."""
    while not (text := report.read_text()):
        sleep(0.02)
    return text


def _calls(line: str) -> int:
    """Return the number of calls in strace's summary."""
    fields = line.split()
    return int(fields[3]) if fields and fields[-1] in COUNTED.split(",") else 0


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the server accepts connections."""
    deadline = monotonic() + START_TIMEOUT
    while monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            sleep(0.02)
        else:
            return
    raise RuntimeError(f"the server did not start: {process.args!r}")
