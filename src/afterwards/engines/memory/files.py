"""Uploaded files, in memory."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from afterwards.core.clock_correction import put_back
from afterwards.core.serialization.files import UNCLAIMED
from afterwards.engine import Chunk
from afterwards.engines.memory.kept import Kept

NEVER = datetime.max.replace(tzinfo=UTC)
"""The ``until`` of a moved file whose task was stored where it came from."""


@dataclass(slots=True, kw_only=True)
class File:
    """An uploaded file."""

    task: str
    until: datetime  # when it is deleted, unless its task is stored
    chunks: dict[int, bytes] = field(default_factory=dict)


class KeptFiles(Kept):
    """The contents of uploaded files."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self._files: dict[str, File] = {}

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        with self._lock:
            for chunk in chunks:
                new = File(task=chunk.task, until=self._clock() + UNCLAIMED)
                self._files.setdefault(chunk.file, new).chunks[chunk.number] = chunk.content

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        with self._lock:
            chunks = self._files[file].chunks if file in self._files else {}
            return [content for number, content in sorted(chunks.items()) if start <= number < start + limit]

    def _delete_files(self, tasks: Container[str], stored: Container[str]) -> None:
        for id, file in list(self._files.items()):
            if file.task in tasks and file.task not in stored:
                del self._files[id]

    def _put_files_right(self, now: datetime) -> bool:
        wrong = [file for file in self._files.values() if file.until != NEVER and put_back(file.until - UNCLAIMED, now)]
        for file in wrong:
            file.until = now + UNCLAIMED
        return bool(wrong)

    def _prune_files(self, pruned: Container[str], stored: Container[str], now: datetime) -> None:
        for id, file in list(self._files.items()):
            if file.task in pruned or (file.task not in stored and file.until <= now):
                del self._files[id]
