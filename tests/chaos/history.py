"""What clients were told, and what functions did: each process of a server writes it down in a file of its own."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from afterwards.core.task import Task


class What(StrEnum):
    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A task's function began, or reached its last line."""

    task: str
    attempt: int
    what: What
    at: int  # nanoseconds of a clock that all processes of this machine share
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request, and the tasks that its 2xx promised; None when no answer came: it was stored, or not."""

    number: int  # the same for each try of a request that is repeated with its idempotency key
    length: int
    ordered: bool
    ids: tuple[str, ...] | None
    status: int | None = 200  # None: no answer came
    retry_after: bool = False
    at: int = 0  # when it was sent, by the clock of the effects
    seconds: float = 0.0  # until the answer, or until the connection was found dead


class Diary:
    """The history of this process. What was written survives its death, for the kernel has it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = os.open(folder / f"{os.getpid()}-{time.monotonic_ns()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, task: Task, what: What) -> None:
        effect = Effect(task=task.id, attempt=task.attempt, what=what, at=time.monotonic_ns(), pid=os.getpid())
        os.write(self._file, f"{json.dumps(asdict(effect))}\n".encode())


def read(folder: Path) -> list[Effect]:
    """Everything that all processes wrote, in the order in which it happened."""
    return sorted((_effect(line) for file in folder.glob("*") for line in _whole_lines(file)), key=lambda one: one.at)


class Tail:
    """Reads what is written from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = {file: file.stat().st_size for file in folder.glob("*")}

    def read(self) -> list[Effect]:
        """Return what was written since the last time, in any order."""
        return [effect for file in self._folder.glob("*") for effect in self._new(file)]

    def _new(self, file: Path) -> Iterable[Effect]:
        with file.open("rb") as written:
            written.seek(self._read.get(file, 0))
            whole, newline, _ = written.read().rpartition(b"\n")
        self._read[file] = self._read.get(file, 0) + len(whole + newline)
        return [_effect(line) for line in whole.decode().splitlines()]


def _whole_lines(file: Path) -> Iterable[str]:
    return file.read_text().split("\n")[:-1]  # what follows the last newline was cut off by the kill


def _effect(line: str) -> Effect:
    fields = json.loads(line)
    return Effect(**fields | {"what": What(fields["what"])})
