"""uvicorn as a user starts it, in processes of its own that can be killed, paused and started again."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

TESTS = Path(__file__).parents[1]
TIMEOUT = 30.0  # seconds after which something that was waited for will not happen any more
POLL = 0.01


class Server:
    """A server on a socket that outlives it: who connects while it is away is answered after its next start."""

    def __init__(
        self,
        *target: str,
        folder: Path,
        workers: int = 1,
        app_dir: Path = TESTS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "uvicorn", "--fd", str(self._listening.fileno())]
        self._command += ["--workers", str(workers), "--app-dir", str(app_dir), "--no-access-log", *target]
        self._environment = _clean_environment() | (environment or {})
        self._log = folder / f"server-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._listening.getsockname()[1]

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
                pass_fds=[self._listening.fileno()],
                start_new_session=True,  # a process group of its own, which is killed as a whole
            )

    def wait_until_it_serves(self) -> None:
        """Return when it answers, whatever it says. Raises RuntimeError when it has died instead."""
        wait_until(self._answers, "the server to answer")

    def kill(self) -> None:
        """Kill every process of the server at once, as a power cut would."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            assert self._process
            self._process.wait()

    def workers(self) -> list[int]:
        """The processes that uvicorn has started with `--workers 2`."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        processes = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
        return [int(pid) for pid, parent, args in processes if int(parent) == self.pid and "spawn_main" in args]

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
        self._listening.close()
        if error:
            error.add_note(f"The server's last words:\n{self.log()[-4000:]}")

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
