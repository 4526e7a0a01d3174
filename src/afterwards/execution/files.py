"""Reopen the uploaded files among a task's arguments, for one attempt."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, cast

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import UploadFile
from starlette.datastructures import Headers

from afterwards.core.errors import FileMissing
from afterwards.core.serialization.files import CHUNKS_AT_ONCE, StoredFile, replaced, stored_files
from afterwards.core.shortage import beginning
from afterwards.engine import Files
from afterwards.execution.retrying import persist

MOST_IN_MEMORY = 1024 * 1024
"""Size in bytes above which a file is kept on disk, as with an upload in a request."""


@asynccontextmanager
async def opened(
    values: Mapping[str, Any], parameters: Collection[str], *, task: str, files: Files, limiter: CapacityLimiter
) -> AsyncIterator[dict[str, Any]]:
    """Yield the arguments with their files open, each at its beginning; close the files afterwards.

    Raises FileMissing, Shortage.
    """
    given = {name: values[name] for name in parameters if name in values}
    uploads: dict[StoredFile, UploadFile] = {}
    with ExitStack() as opened_files:  # closed without waiting, so that no cancellation can leave one open
        with beginning("open its files"), ExitStack() as stack:
            for stored in stored_files(list(given.values())):
                file = stack.enter_context(SpooledTemporaryFile(max_size=MOST_IN_MEMORY))
                size = await _fill(file, stored, task=task, files=files, limiter=limiter)
                uploads[stored] = _upload(file, stored, size)
            opened_files.enter_context(stack.pop_all())
        yield {**values, **replaced(given, _is_stored_file, uploads.__getitem__)}


async def _fill(file: Any, stored: StoredFile, *, task: str, files: Files, limiter: CapacityLimiter) -> int:
    """Write the content of a file, and go back to its beginning. Returns its size."""
    size = start = 0
    read = partial(files.read_chunks, stored.id, limit=CHUNKS_AT_ONCE)
    while chunks := await persist("read an uploaded file", partial(read, start=start)):
        for chunk in chunks:
            size += len(chunk)
            if size > MOST_IN_MEMORY:
                await run_sync(file.write, chunk, limiter=limiter)
            else:
                file.write(chunk)
        start += len(chunks)
    if not start:
        raise FileMissing(task, stored.filename, stored.id)
    file.seek(0)
    return size


def _upload(file: Any, stored: StoredFile, size: int) -> UploadFile:
    headers = Headers(raw=[(name.encode("latin-1"), text.encode("latin-1")) for name, text in stored.headers])
    return UploadFile(cast(Any, file), size=size, filename=stored.filename, headers=headers)


def _is_stored_file(value: Any) -> bool:
    return isinstance(value, StoredFile)
