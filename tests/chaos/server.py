"""uvicorn and the worker as users start them, in processes that can be killed, paused and started again."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

TESTS = Path(__file__).parents[1]
TIMEOUT = 30.0  # seconds after which something that was waited for will not happen any more
POLL = 0.01


class Program:
    """A command in processes of its own, whose output goes to a file."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, log: str, environment: Mapping[str, str] | None
    ) -> None:
        self.folder = folder
        self._command = [sys.executable, "-m", *command]
        self._environment = _clean_environment() | (environment or {})
        self._log = folder / log
        self._process: subprocess.Popen[bytes] | None = None
        self._inherited: tuple[int, ...] = ()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self._inherited,
                start_new_session=True,  # a process group of its own, which is killed as a whole
            )

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # also those that outlive the first one
            self._process.wait()

    def pause(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it as a deploy does, and wait until it has ended."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: not self.running, "the server to end")

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if error:
            error.add_note(f"Its last words:\n{self.log()[-4000:]}")


class Worker(Program):
    """`afterwards worker`: a process that serves nothing."""

    def __init__(self, app: str, *, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(["afterwards", "worker", app], folder=folder, log="worker.log", environment=environment)


class Server(Program):
    """A server on a socket that outlives it: who connects while it is away is answered after its next start."""

    def __init__(
        self,
        *target: str,
        folder: Path,
        workers: int = 1,
        app_dir: Path = TESTS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.port}"
        command = ["uvicorn", "--fd", str(self._listening.fileno()), "--workers", str(workers)]
        command += ["--app-dir", str(app_dir), "--no-access-log", *target]
        super().__init__(command, folder=folder, log=f"server-{self.port}.log", environment=environment)
        self._inherited = (self._listening.fileno(),)

    @property
    def port(self) -> int:
        return self._listening.getsockname()[1]

    def wait_until_it_serves(self) -> None:
        """Return when it answers, whatever it says. Raises RuntimeError when it has died instead."""
        wait_until(self._answers, "the server to answer")

    def workers(self) -> list[int]:
        """The processes that uvicorn has started with `--workers 2`."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        processes = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
        return [int(pid) for pid, parent, args in processes if int(parent) == self.pid and "spawn_main" in args]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._listening.close()

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError("the server ended instead of serving")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/is-anybody-there")
            return bool(connection.getresponse())
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def wait_until(happened: Callable[[], bool], what: str, *, timeout: float = TIMEOUT) -> None:
    """Poll until it has happened. Raises TimeoutError, naming it, when it does not."""
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}")
        time.sleep(POLL)


def _clean_environment() -> dict[str, str]:
    """Without pytest's variables and our own settings: a server, as in production."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "AFTERWARDS", "COV_"))}
    path = os.pathsep.join(filter(None, [str(TESTS), ours.get("PYTHONPATH")]))
    return ours | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
