"""Records on their way from one engine to another, and the decision which of them the other one stores.

A batch keeps instants, not spans until them. To its tasks, another engine with another clock is one clock that was set:
small differences shorten or lengthen waits by as much, and those of more than three hours are put right
(``core.clock_correction``). Spans would grow by the time for which an interrupted move is not continued.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from afterwards.core import lifecycle
from afterwards.core.claim import NOTHING_PAUSED, Paused
from afterwards.core.limits import Start
from afterwards.core.progress import Progress
from afterwards.core.schedule import StoredSchedule
from afterwards.core.storing import Key, KeyKind, Loaded, keys_of
from afterwards.core.tallies import Tally
from afterwards.core.task import State, Task

MOST_BYTES: Final = 4 * 1024 * 1024
"""About how large the tasks of one batch may be together. A single task may be larger."""

CHUNKS_AT_ONCE: Final = 16
"""The most chunks of files in one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedTask:
    """A task with everything that its engine keeps of it."""

    task: Task  # with its failures and their tracebacks
    since: datetime | None = (
        None  # queued: claimable since then; scheduled: waits for its `run_at` since then, if known
    )
    aliases: tuple[str, ...] = ()  # ids of calls for which it stands
    progress: str | None = None  # in JSON only: its progress as text, which keeps whole numbers

    @property
    def size(self) -> int:
        """The size of its longest texts, in characters."""
        task = self.task
        texts = (task.arguments, task.result, task.context, *(failure.traceback for failure in task.failures))
        return sum(len(text) for text in (*texts, *(line.message for line in task.logs)) if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedChunk:
    """A piece of an uploaded file."""

    file: str
    task: str
    number: int
    content: bytes = field(repr=False)
    until: datetime | None  # when the file is deleted unless its task is stored; None: its task was stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records that one engine hands over to another."""

    id: str  # a UUID
    to: str  # the name of the engine that takes it over
    paused: Paused = NOTHING_PAUSED  # without schedules, whose pauses they contain
    schedules: tuple[StoredSchedule, ...] = ()
    starts: tuple[Start, ...] = ()
    tallies: tuple[Tally, ...] = ()  # a minute may be in several batches: its counts are added
    chunks: tuple[MovedChunk, ...] = ()
    tasks: tuple[MovedTask, ...] = ()  # newest first
    beyond: str = ""  # where the engine goes on; only it knows the meaning

    @property
    def is_empty(self) -> bool:
        """Return True if it has no records: it only says where the engine goes on."""
        some = self.tasks or self.chunks or self.starts or self.tallies or self.schedules
        return not some and self.paused == NOTHING_PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """The tasks of a batch that an engine stores, and those that it does not."""

    stored: Sequence[MovedTask] = ()
    known: Sequence[str] = ()  # the ids of those that it has already, which are left unchanged
    without_keys: Sequence[str] = ()  # the ids of those whose unique or idempotency key another task has


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """A batch that is stored again where it came from."""

    batch: Batch
    arrived: Arrived


def needed_ids(tasks: Iterable[MovedTask]) -> list[str]:
    """Return the ids of moved tasks and of their predecessors, each once."""
    found = [*tasks]
    before = (one.task.after for one in found if one.task.after is not None)
    return [*dict.fromkeys([*(one.task.id for one in found), *before])]


def arrive(tasks: Sequence[MovedTask], loaded: Loaded, now: datetime) -> Arrived:
    """Decide which moved tasks an engine stores. ``loaded`` is as for ``storing.store_all``, by ``needed_ids``.

    A task whose id is stored already stays as it is there. A key that another task has there is left out of the moved
    task, which is stored all the same: both calls were accepted. A task that waits for one that is stored there follows
    it, and goes on waiting for one that is not, because that one comes later.
    """
    stored: list[MovedTask] = []
    known: list[str] = []
    without_keys: list[str] = []
    for one in tasks:
        if one.task.id in loaded.by_id:
            known.append(one.task.id)
            continue
        task = _without_taken_keys(one.task, loaded.by_key)
        if task is not one.task:
            without_keys.append(task.id)
        before = loaded.by_id.get(task.after or "")
        if before is not None and task.state is State.WAITING and task.set_aside is None:
            task = lifecycle.follow(task, before, now)
        stored.append(one if task is one.task else replace(one, task=task))
    return Arrived(stored=stored, known=known, without_keys=without_keys)


def to_text(batch: Batch) -> str:
    """Return a batch as JSON, without the contents of its chunks."""
    chunks = tuple(replace(chunk, content=b"") for chunk in batch.chunks)
    tasks = tuple(
        replace(one, task=replace(one.task, progress=None), progress=one.task.progress.to_text())
        if one.task.progress
        else one
        for one in batch.tasks
    )
    return _JSON.dump_json(replace(batch, chunks=chunks, tasks=tasks)).decode()


def of_text(text: str) -> Batch:
    """Return the batch of ``to_text``."""
    batch = _JSON.validate_json(text)
    tasks = tuple(
        replace(one, task=replace(one.task, progress=Progress.of_text(one.progress)), progress=None)
        if one.progress
        else one
        for one in batch.tasks
    )
    return replace(batch, tasks=tasks)


def within_bytes(tasks: Iterable[MovedTask]) -> Iterator[MovedTask]:
    """Yield the first of these tasks that are not too large together, at least one."""
    size = 0
    for one in tasks:
        size += one.size
        yield one
        if size >= MOST_BYTES:
            return


def _without_taken_keys(task: Task, taken: Mapping[Key, Task]) -> Task:
    for key in keys_of(task):
        if key not in taken:
            continue
        if key.kind is KeyKind.IDEMPOTENCY:
            task = replace(task, idempotency_key=None)
        elif not task.state.finished:
            task = replace(task, unique_key=None)
    return task


_JSON = TypeAdapter(Batch)
