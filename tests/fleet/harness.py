"""A web process and Celery workers as users start them, and the questions that tests ask them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from shutil import copy
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from amqp.exceptions import NotFound
from kombu import Connection, Queue

from face.processes import Program
from servers.process import ServerProcess

T = TypeVar("T")

TESTS = Path(__file__).parents[1]
APPLICATION = "fleet.apps.shop"
CELERY = str(Path(sys.executable).with_name("celery"))
"""The script that users start. Unlike ``python -m celery``, it does not leave the working folder on ``sys.path``."""

TIMEOUT = 90.0
"""Seconds that anything may take on a busy machine."""

_numbers = count()


class Fleet:
    """An application in a folder of its own, with queues of its own on a broker that others may use, too."""

    def __init__(self, broker: ServerProcess, folder: Path, url: str | None = None, **settings: object) -> None:
        self.broker = broker
        self.folder = folder
        self.queue = f"q{os.getpid()}-{next(_numbers)}"
        self.url = url or f"sqlite:///{folder / 'tasks.db'}"
        self._settings = {f"FLEET_{name.upper()}": str(value) for name, value in settings.items()}
        self._stack = ExitStack()
        self._http: httpx.Client | None = None
        self._web: Program | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        if error:
            for file in sorted(self.folder.glob("output-*.txt")):
                error.add_note(f"{file.name}:\n{file.read_text()[-5000:]}")

    def worker(self, *arguments: str, pool: str = "prefork", app: str = APPLICATION, ready: bool = True) -> Program:
        """Start a Celery worker by its script, and return when it takes tasks."""
        name = f"{self.queue}-{next(_numbers)}@test"
        command = [CELERY, "-A", f"{app}:celery_app", "worker", "--loglevel", "INFO", "-n", name]
        quick = ["--without-gossip", "--without-mingle", "--pool", pool]
        worker = self._start([*command, *quick, *arguments])
        if ready:
            worker.says(r"@test ready\.")
        return worker

    def web(self, app: str = APPLICATION) -> None:
        """Start the web process, which stores and dispatches."""
        program = self._start([sys.executable, "-m", "uvicorn", f"{app}:app", "--port", "0"])
        self._web = program
        self._http = self._stack.enter_context(httpx.Client(base_url=program.url, timeout=TIMEOUT))

    def end_web(self) -> None:
        assert self._web
        self._web.stops()

    @property
    def http(self) -> httpx.Client:
        assert self._http, "web() first"
        return self._http

    def write_main(self) -> str:
        """Write the application into the working folder, the only place where it is found. Returns its module."""
        copy(TESTS.joinpath(*APPLICATION.split(".")).with_suffix(".py"), self.folder / "main.py")
        return "main"

    def add(self, function: str, text: str | None = None, **options: Any) -> str:
        """Add one task in a request of its own. Returns its id."""
        [id] = self.add_all((function, text), **options)
        return id

    def add_all(self, *calls: tuple[str, str | None], ordered: bool = True, **options: Any) -> list[str]:
        """Add tasks in one request. Returns their ids."""
        body = [{"function": function, "text": text, "options": options} for function, text in calls]
        answer = self.http.post("/calls", json=body, params={"ordered": ordered})
        assert answer.status_code == 200, answer.text
        ids: list[str] = answer.json()
        return ids

    def record(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/records/{id}").json()
        return found

    def finished(self, id: str) -> dict[str, Any]:
        """Wait until a task has finished. Returns its record."""
        return self.eventually(lambda: self._if_finished(id), f"{id} to finish")

    def succeeded(self, id: str) -> dict[str, Any]:
        record = self.finished(id)
        assert record["state"] == "succeeded", record
        return record

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def shut(self, gate: str) -> None:
        (self.folder / gate).unlink()

    def diary(self) -> list[str]:
        file = self.folder / "diary.txt"
        return file.read_text().splitlines() if file.exists() else []

    def wrote(self, pattern: str) -> re.Match[str]:
        """Wait until the application has written a line down."""
        return self.eventually(
            lambda: next(filter(None, (re.fullmatch(pattern, line) for line in self.diary())), None),
            f"{pattern!r} in the diary",
        )

    def times(self, pattern: str) -> int:
        return sum(re.fullmatch(pattern, line) is not None for line in self.diary())

    def eventually(self, condition: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + TIMEOUT
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited {TIMEOUT:g} s for {what}; the diary has {self.diary()}"
            time.sleep(0.02)
        return found

    def send_by_hand(self, *arguments: object, queue: str | None = None, **named: object) -> None:
        """Send a message as Celery's protocol has it, whoever its sender is."""
        name = queue or self.queue
        headers = {"lang": "py", "task": "afterwards.run", "id": f"by-hand-{next(_numbers)}", "ignore_result": True}
        with self.connection() as connection, connection.Producer(serializer="json") as producer:
            producer.publish(
                ([*arguments], named, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}),
                exchange="",
                routing_key=name,
                headers=headers,
                declare=[self.queue_of(name)],
            )

    def waiting(self, queue: str | None = None) -> int:
        """Return the number of messages that wait at the broker."""
        with self.connection() as connection:
            channel = connection.channel()
            bound = self.queue_of(queue or self.queue)(channel)
            with suppress(NotFound):  # nobody has sent anything
                return int(bound.queue_declare(passive=connection.transport.driver_type == "amqp").message_count)
        return 0

    def purge(self, queue: str | None = None) -> int:
        """Delete the messages that wait at the broker. Returns how many."""
        with self.connection() as connection:
            purged: int = self.queue_of(queue or self.queue)(connection.channel()).purge()
            return purged

    def connection(self) -> Connection:
        return Connection(self.broker.url, connect_timeout=10)

    def queue_of(self, name: str) -> Queue:
        return Queue(name, routing_key=name, max_priority=9)

    def _if_finished(self, id: str) -> dict[str, Any] | None:
        record = self.record(id)
        return record if record["state"] in ("succeeded", "failed", "cancelled") else None

    def _start(self, command: Sequence[str]) -> Program:
        environment = {
            "PYTHONPATH": str(TESTS),
            "AFTERWARDS_URL": self.url,
            "FLEET_BROKER": self.broker.url,
            "FLEET_QUEUE": self.queue,
            "FLEET_FOLDER": str(self.folder),
            "C_FORCE_ROOT": "1",
            **self._settings,
        }
        return self._stack.enter_context(Program(command, self.folder, **environment))


def children(worker: Program) -> list[int]:
    """Return the processes of a prefork pool."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, parent in pairs if int(parent) == worker.process.pid]
