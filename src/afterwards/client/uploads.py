"""Store uploaded files among the arguments of a call: their content is stored before the call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NoReturn, Protocol
from weakref import WeakKeyDictionary

from anyio import CancelScope

from afterwards.client.client import Client
from afterwards.client.request import request_tasks
from afterwards.core.errors import EngineError, FileTooLarge, TooLarge, UnstorableArgument
from afterwards.core.serialization.files import CHUNK, CHUNKS_AT_ONCE, StoredFile
from afterwards.core.task import NewTask, Task
from afterwards.engine import Chunk

UNSTORABLE = (TooLarge, UnstorableArgument)
"""The errors for files that cannot be stored."""


class Upload(Protocol):
    """The part of FastAPI's ``UploadFile`` that is used here."""

    filename: str | None
    size: int | None
    file: BinaryIO

    async def read(self, size: int) -> bytes: ...
    async def seek(self, offset: int) -> None: ...


@asynccontextmanager
async def files_stored(tasks: Sequence[NewTask], uploads: Sequence["Uploads"], client: Client) -> AsyncIterator[None]:
    """Store the files of tasks that are stored inside the block. Delete them if the tasks are not stored.

    The queues are checked first: nothing is written for tasks that would be refused. Raises QueueFull, FileTooLarge,
    UnstorableArgument, EngineError.
    """
    if not any(one.any for one in uploads):
        yield
        return
    engine = await client.open()
    if any(new.max_queued is not None for new in tasks):
        await engine.refuse_full(tasks)
    try:
        for one in uploads:
            await one.store()
        yield
    except EngineError:
        # The request is refused at once: a failing engine may need as long again to delete anything.
        if (asked_by := request_tasks.get()) and not asked_by.ended:
            asked_by.start_write(partial(delete_files, uploads, client))
        raise
    except BaseException:  # refused, or cancelled
        with CancelScope(shield=True):
            await delete_files(uploads, client)
        raise


async def delete_unused(uploads: Sequence["Uploads"], stored: Sequence[Task], client: Client) -> None:
    """Delete the files of calls that other tasks answered: nothing reads them."""
    kept = {task.id for task in stored} if uploads else ()
    if unused := [one for one in uploads if one.task not in kept]:
        with CancelScope(shield=True):
            await delete_files(unused, client)


async def delete_files(uploads: Iterable["Uploads"], client: Client) -> None:
    """Delete the files of calls that made no task. Files that cannot be deleted now are deleted after a day."""
    with suppress(EngineError):
        engine = await client.open()
        await engine.delete_files([one.forget() for one in uploads])


@dataclass(frozen=True, slots=True)
class Named:
    """An upload that already has an id in the arguments, and is still to be stored."""

    parameter: str
    stored: StoredFile
    upload: Upload


class Uploads:
    """The files of one call. They get ids while its arguments are encoded, and are stored before it."""

    def __init__(self, name: str, task: str, client: Client) -> None:
        self.failed = False  # they can never be stored: retrying is useless
        self.task = task  # the id with which its call is to be stored
        self._name = name
        self._client = client
        self._limit = client.options.max_file_size
        self._files: list[Named] = []
        self._stored = 0  # number of files stored, in order

    @property
    def any(self) -> bool:
        """Return whether any file is still to be stored."""
        return self._stored < len(self._files)

    def refer(self, parameter: str, upload: Upload) -> StoredFile:
        """Return the stored form of an upload in the arguments. Raises FileTooLarge, UnstorableArgument."""
        if getattr(upload.file, "closed", False):
            self._refuse_closed(parameter, upload)
        if upload.size is not None:
            self._check_size(parameter, upload.size)
        stored = StoredFile.of(upload, self._client.new_id())
        self._files.append(Named(parameter, stored, upload))
        return stored

    async def store(self) -> None:
        """Store the files, each from its beginning. Their read positions are restored afterwards.

        May be called again when it has failed. Raises FileTooLarge, UnstorableArgument, EngineError.
        """
        try:
            while self.any:
                await self._store(self._files[self._stored])
                self._stored += 1
        except UNSTORABLE:
            self.failed = True
            raise

    def forget(self) -> str:
        """Mark the files of a call that made no task as not stored. Return the id under which they can be deleted."""
        self._stored = 0
        return self.task

    async def _store(self, named: Named) -> None:
        engine = await self._client.open()
        async with _from_the_beginning(named.upload, lambda: self._refuse_closed(named.parameter, named.upload)):
            size = number = 0
            while contents := await self._read(named, first=number == 0):
                size += sum(map(len, contents))
                self._check_size(named.parameter, size)  # whatever was declared of it, or written to it, before
                await engine.write_chunks(
                    [
                        Chunk(file=named.stored.id, task=self.task, number=at, content=content)
                        for at, content in enumerate(contents, number)
                    ]
                )
                number += len(contents)

    async def _read(self, named: Named, *, first: bool) -> list[bytes]:
        """Return the next chunks; none at the end. An empty file has one empty chunk, which shows that it exists."""
        contents: list[bytes] = []
        try:
            while len(contents) < CHUNKS_AT_ONCE and (content := await named.upload.read(CHUNK)):
                contents.append(content)
        except ValueError:
            self._refuse_closed(named.parameter, named.upload)
        return contents or [b""] * first

    def _check_size(self, parameter: str, size: int) -> None:
        if size > self._limit:
            raise FileTooLarge(self._name, f'parameter "{parameter}"', size, self._limit)

    def _refuse_closed(self, parameter: str, upload: Upload) -> NoReturn:
        raise UnstorableArgument(
            self._name,
            parameter,
            f"the uploaded file {upload.filename!r} is closed, so its content cannot be stored: let FastAPI close it, "
            "or store the task first, with `await background_tasks.flush()`",
        ) from None


@asynccontextmanager
async def _from_the_beginning(upload: Upload, refuse_closed: Callable[[], NoReturn]) -> AsyncIterator[None]:
    """Seek to the beginning of an upload, and restore its position afterwards."""
    # Tasks that store the same upload at the same time take turns: it has one position.
    async with _locks.setdefault(upload, asyncio.Lock()):
        try:
            position = upload.file.tell()
            await upload.seek(0)
        except ValueError:
            refuse_closed()
        try:
            yield
        finally:
            with suppress(ValueError):  # closed meanwhile: the reader has raised an error for it
                await upload.seek(position)


_locks: WeakKeyDictionary[Upload, asyncio.Lock] = WeakKeyDictionary()
