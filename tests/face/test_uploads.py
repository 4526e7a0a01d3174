"""Uploaded files as arguments: what was uploaded is what the task reads, wherever and whenever it runs."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, Depends, FastAPI, File, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.datastructures import UploadFile as StarletteUploadFile

from afterwards import (
    Afterwards,
    BackgroundTasks,
    InvalidOption,
    NotStored,
    QueueFull,
    Snooze,
    TaskHandle,
    TooLarge,
    chain,
    engines,
    task,
)
from afterwards.core.errors import EngineUnavailable, UnstorableArgument
from afterwards.core.serialization.files import CHUNK, CHUNKS_AT_ONCE
from afterwards.core.task import FailureKind, State, Task
from afterwards.engine import Chunk
from afterwards.engines.memory import MemoryEngine
from face.processes import TIMEOUT, eventually, record, uvicorn, write_application
from face.serving import as_stored, finished, records, serving, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * CHUNKS_AT_ONCE, CHUNK * CHUNKS_AT_ONCE + 1, 10_000_000]
"""Empty, around the edges of what is stored in one piece and at once, and one that lies on the disk."""

seen: list[Any] = []
"""What the tasks of a test were given, in order."""


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    seen.clear()
    yield
    seen.clear()


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


@task
async def describe(file: UploadFile) -> dict[str, Any]:
    seen.append(file)
    return {
        "digest": digest(await file.read()),
        "filename": file.filename,
        "type": file.content_type,
        "headers": dict(file.headers),
        "size": file.size,
    }


@task
def describe_in_thread(file: UploadFile) -> dict[str, Any]:
    seen.append(file)
    return {"digest": digest(file.file.read()), "size": file.size}


@task
async def digests(files: list[UploadFile], cover: Annotated[UploadFile | None, File()] = None) -> list[str]:
    given = files if cover is None else [*files, cover]
    return [digest(await file.read()) for file in given]


@task
async def maybe(file: UploadFile | None) -> str | None:
    return None if file is None else digest(await file.read())


@task(retries=1)
async def read_half_then_fail_once(file: UploadFile) -> str:
    seen.append(file)
    half = await file.read((file.size or 0) // 2)
    if len(seen) == 1:
        raise ValueError("not yet")
    return digest(half + await file.read())


@task
async def snooze_once(file: UploadFile) -> str:
    seen.append(await file.read())
    if len(seen) == 1:
        raise Snooze(0)
    return digest(seen[-1])


async def locale() -> AsyncIterator[str]:
    yield "en"


@task
async def with_dependency(file: UploadFile, language: Annotated[str, Depends(locale)]) -> str:
    return f"{language} {digest(await file.read())}"


@task
async def passing_on(file: UploadFile) -> str:
    await file.read()
    return await (await maybe.enqueue(file)).result(timeout=TIMEOUT) or ""


Add = Callable[[Any], TaskHandle[Any]]


class Served:
    """An application that takes uploads, and a client of it."""

    def __init__(self, app: FastAPI, tasks: Afterwards, http: httpx.AsyncClient) -> None:
        self.app = app
        self.tasks = tasks
        self.http = http
        self.handles: list[TaskHandle[Any]] = []

    def adding(self, add: Callable[[UploadFile, BackgroundTasks], Any]) -> None:
        """Have the endpoint do this with an upload."""

        @self.app.post("/upload")
        async def upload(file: UploadFile, tasks: BackgroundTasks) -> None:
            handle = add(file, tasks)
            handle = await handle if asyncio.iscoroutine(handle) else handle
            if handle is not None:
                self.handles.append(handle)

    async def upload(self, content: bytes, *, name: str = "a.bin", type: str = "application/x-a") -> httpx.Response:
        return await self.http.post("/upload", files={"file": (name, content, type)})

    async def result(self) -> Any:
        """What the last task has returned; what a stream adds may be stored after the client has all of it."""

        async def stored() -> TaskHandle[Any] | None:
            with suppress(NotStored, IndexError):
                await self.handles[-1].status()
                return self.handles[-1]
            return None

        return await (await until_async(stored)).result(timeout=TIMEOUT)


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
async def served(url: str, options: dict[str, Any]) -> AsyncIterator[Served]:
    app = FastAPI()
    tasks = Afterwards(app, url, **options)
    async with serving(app) as http:
        yield Served(app, tasks, http)


def add(function: Any) -> Callable[[UploadFile, BackgroundTasks], TaskHandle[Any]]:
    return lambda file, tasks: tasks.add_task(function, file)


@pytest.mark.parametrize("size", SIZES)
async def test_the_task_reads_what_was_uploaded(served: Served, size: int) -> None:
    content = os.urandom(size)
    served.adding(add(describe))
    assert (await served.upload(content, name="été 1.bin")).status_code == 200
    described = await served.result()
    assert described.pop("headers")["content-type"] == "application/x-a"
    assert described == {
        "digest": digest(content),
        "filename": "été 1.bin",
        "type": "application/x-a",
        "size": size,
    }


@pytest.mark.parametrize("size", SIZES)
async def test_a_def_function_reads_the_file_itself(served: Served, size: int) -> None:
    content = os.urandom(size)
    served.adding(add(describe_in_thread))
    await served.upload(content)
    assert await served.result() == {"digest": digest(content), "size": size}


async def test_the_file_is_another_one_and_closed_afterwards(served: Served) -> None:
    given = []

    def adding(file: UploadFile, tasks: BackgroundTasks) -> TaskHandle[Any]:
        given.append(file)
        return tasks.add_task(describe, file)

    served.adding(adding)
    await served.upload(b"a")
    await served.result()
    [file] = seen
    assert type(file) is UploadFile
    assert file is not given[0]
    assert file.file.closed


async def test_several_files_keep_their_order(served: Served) -> None:
    contents = [os.urandom(size) for size in (5, 0, CHUNK * 2, 7)]

    @served.app.post("/several")
    async def several(files: list[UploadFile], tasks: BackgroundTasks) -> None:
        served.handles.append(tasks.add_task(digests, files[:3], cover=files[3]))

    await served.http.post("/several", files=[("files", content) for content in contents])
    assert await served.result() == [digest(content) for content in contents]


async def test_none_stays_none(served: Served) -> None:
    @served.app.post("/maybe")
    async def may_upload(tasks: BackgroundTasks, file: UploadFile | None = None) -> None:
        served.handles.append(tasks.add_task(maybe, file))

    await served.http.post("/maybe")
    assert await served.result() is None
    await served.http.post("/maybe", files={"file": b"a"})
    assert await served.result() == digest(b"a")


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_retry_reads_it_again_from_the_start(served: Served, size: int) -> None:
    content = os.urandom(size)
    served.adding(add(read_half_then_fail_once))
    await served.upload(content)
    assert await served.result() == digest(content)
    first, second = seen
    assert first is not second
    assert first.file.closed and second.file.closed


async def test_a_snoozed_task_reads_it_again(served: Served) -> None:
    served.adding(add(snooze_once))
    await served.upload(b"abc")
    assert await served.result() == digest(b"abc")
    assert seen == [b"abc", b"abc"]


async def test_dependencies_go_together_with_files(served: Served) -> None:
    served.adding(add(with_dependency))
    await served.upload(b"abc")
    assert await served.result() == f"en {digest(b'abc')}"


async def test_a_task_may_pass_its_file_on(served: Served) -> None:
    served.adding(add(passing_on))
    await served.upload(b"abc" * CHUNK)
    assert await served.result() == digest(b"abc" * CHUNK)


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_what_the_handler_has_read_of_it_does_not_matter(served: Served, size: int) -> None:
    content, positions = os.urandom(size), []

    async def adding(file: UploadFile, tasks: BackgroundTasks) -> TaskHandle[Any]:
        await file.read(10)
        handle = tasks.add_task(describe, file)
        await file.read(20)
        await tasks.flush()
        positions.append(file.file.tell())
        assert await file.read() == content[30:]
        return handle

    served.adding(adding)
    assert (await served.upload(content)).status_code == 200
    assert (await served.result())["digest"] == digest(content)
    assert positions == [30]


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_enqueue_stores_it_at_once(served: Served, size: int) -> None:
    content = os.urandom(size)

    async def adding(file: UploadFile, tasks: BackgroundTasks) -> TaskHandle[Any]:
        await file.read(10)
        handle = await describe.enqueue(file)
        assert file.file.tell() == 10
        await file.close()
        return handle

    served.adding(adding)
    await served.upload(content)
    assert (await served.result())["digest"] == digest(content)


async def test_two_that_store_the_same_upload_at_the_same_time_take_turns(served: Served) -> None:
    content, handles = os.urandom(5_000_000), []

    async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
        handles.extend(await asyncio.gather(*(maybe.enqueue(file) for _ in range(3))))

    served.adding(adding)
    await served.upload(content)
    assert {await handle.result(timeout=TIMEOUT) for handle in handles} == {digest(content)}


async def test_each_task_of_a_request_has_its_own(served: Served) -> None:
    def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
        served.handles += [tasks.add_task(maybe, file), tasks.add_task(digests, [file, file])]

    served.adding(adding)
    await served.upload(b"abc")
    first, second = served.handles
    assert await first.result(timeout=TIMEOUT) == digest(b"abc")
    assert await second.result(timeout=TIMEOUT) == [digest(b"abc")] * 2


async def test_an_upload_that_was_made_by_hand_has_its_size_in_the_task(served: Served) -> None:
    handle = await describe.enqueue(UploadFile(io.BytesIO(b"abc")))
    described = await handle.result(timeout=TIMEOUT)
    assert described == {"digest": digest(b"abc"), "filename": None, "type": None, "headers": {}, "size": 3}


async def test_starlettes_own_uploads_are_files_too(served: Served) -> None:
    @served.app.post("/form")
    async def form(request: Request, tasks: BackgroundTasks) -> None:
        async with request.form() as form:  # which closes it
            assert type(form["file"]) is StarletteUploadFile
            served.handles.append(tasks.add_task(maybe, form["file"]))  # type: ignore[arg-type]
            await tasks.flush()

    await served.http.post("/form", files={"file": b"abc"})
    assert await served.result() == digest(b"abc")


async def test_a_direct_call_is_a_plain_call() -> None:
    file = UploadFile(io.BytesIO(b"abc"), filename="a", size=3)
    await describe(file)
    assert seen == [file]
    assert not file.file.closed


async def test_a_response_of_its_own_does_not_lose_it(served: Served) -> None:
    """What was added by hand is stored when the response begins, and the file is open then still."""

    @served.app.post("/by_hand")
    async def by_hand(file: UploadFile) -> JSONResponse:
        tasks = BackgroundTasks()
        served.handles.append(tasks.add_task(maybe, file))
        return JSONResponse({}, background=tasks)

    await served.http.post("/by_hand", files={"file": b"abc"})
    assert await served.result() == digest(b"abc")


@pytest.mark.parametrize("size", [100, 10_000_000])
async def test_what_a_stream_adds_is_stored_before_its_file_is_closed(served: Served, size: int) -> None:
    content = os.urandom(size)

    @served.app.post("/stream")
    async def stream(file: UploadFile, tasks: BackgroundTasks) -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one"
            served.handles.append(tasks.add_task(maybe, file))

        return StreamingResponse(lines())

    await served.http.post("/stream", files={"file": content})
    assert await served.result() == digest(content)


async def test_what_a_dependency_adds_at_its_end_is_stored_before_its_file_is_closed(served: Served) -> None:
    content = os.urandom(10_000_000)

    async def dependency(file: UploadFile, tasks: BackgroundTasks) -> AsyncIterator[None]:
        yield
        served.handles.append(tasks.add_task(maybe, file))

    @served.app.post("/exit", dependencies=[Depends(dependency)])
    async def handler() -> None: ...

    await served.http.post("/exit", files={"file": content})
    assert await served.result() == digest(content)


async def test_what_an_endpoint_in_a_thread_adds_is_stored(served: Served) -> None:
    @served.app.post("/thread")
    def handler(file: UploadFile, tasks: BackgroundTasks) -> None:
        served.handles.append(tasks.add_task(maybe, file))
        file.file.read()

    await served.http.post("/thread", files={"file": b"abc"})
    assert await served.result() == digest(b"abc")


async def test_enqueue_sync_stores_it(served: Served) -> None:
    content = os.urandom(3_000_000)

    @served.app.post("/thread")
    def handler(file: UploadFile) -> None:
        served.handles.append(maybe.enqueue_sync(file))

    await served.http.post("/thread", files={"file": content})
    assert await served.result() == digest(content)


# What cannot be stored.


async def test_a_file_that_is_closed_already_is_refused_by_name(served: Served) -> None:
    errors: list[UnstorableArgument] = []

    async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
        await file.close()
        for call in (lambda: tasks.add_task(digests, [], file), lambda: asyncio.ensure_future(maybe.enqueue(file))):
            with pytest.raises(UnstorableArgument) as caught:
                made = call()
                assert isinstance(made, asyncio.Future)
                await made
            errors.append(caught.value)

    served.adding(adding)
    assert (await served.upload(b"abc")).status_code == 200
    assert [(error.task, error.parameter) for error in errors] == [("digests", "cover"), ("maybe", "file")]
    assert "the uploaded file 'a.bin' is closed" in str(errors[0])
    assert "let FastAPI close it, or store the task first, with `await background_tasks.flush()`" in str(errors[0])


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_file_that_the_handler_closes_afterwards_fails_the_request(
    served: Served, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
        tasks.add_task(digests, [], file)
        await file.close()

    served.adding(adding)
    assert (await served.upload(os.urandom(size))).status_code == 500
    assert await records(served.tasks) == []
    assert "parameter \"cover\": the uploaded file 'a.bin' is closed" in caplog.text


async def test_a_flush_before_it_is_closed_is_the_way_out(served: Served) -> None:
    async def adding(file: UploadFile, tasks: BackgroundTasks) -> TaskHandle[Any]:
        handle = tasks.add_task(maybe, file)
        await tasks.flush()
        await file.close()
        return handle

    served.adding(adding)
    assert (await served.upload(b"abc")).status_code == 200
    assert await served.result() == digest(b"abc")


async def test_what_is_added_too_late_with_a_closed_file_is_logged_and_holds_nothing_up(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    @served.app.post("/stream")
    async def stream(file: UploadFile, tasks: BackgroundTasks) -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one"
            tasks.add_task(digests, [file])
            file.file.close()
            served.handles.append(tasks.add_task(maybe, None))

        return StreamingResponse(lines())

    await served.http.post("/stream", files={"file": b"abc"})
    assert await served.result() is None
    assert [record.name for record in await records(served.tasks)] == ["maybe"]
    assert "could not be stored (digests), after the response had started" in caplog.text


class TestLimit:
    """A file may have so many bytes."""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"max_file_size": 1000}

    async def test_a_file_may_have_that_many(self, served: Served) -> None:
        served.adding(add(maybe))
        await served.upload(b"a" * 1000)
        assert await served.result() == digest(b"a" * 1000)

    async def test_one_more_is_refused_at_add_task(self, served: Served) -> None:
        errors: list[TooLarge] = []

        async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
            try:
                tasks.add_task(digests, [], cover=file)
            except TooLarge as error:
                errors.append(error)
                raise HTTPException(413) from error

        served.adding(adding)
        assert (await served.upload(b"a" * 1001)).status_code == 413
        assert str(errors[0]) == (
            'task "digests", parameter "cover": 1,001 bytes, the limit is 1,000: raise it with '
            "Afterwards(app, max_file_size=...), or keep the file elsewhere and pass its path or id"
        )
        assert await records(served.tasks) == []

    @pytest.mark.parametrize("size", [1000, 1001, 10_000_000])
    async def test_where_nobody_said_how_large_it_is_it_is_counted(self, served: Served, size: int) -> None:
        file = UploadFile(io.BytesIO(b"a" * size))
        file.file.seek(5)
        if size == 1000:
            assert await (await maybe.enqueue(file)).result(timeout=TIMEOUT) == digest(b"a" * size)
        else:
            with pytest.raises(TooLarge, match=r'task "maybe", parameter "file": .* bytes, the limit is 1,000'):
                await maybe.enqueue(file)
            assert await records(served.tasks) == []
        assert file.file.tell() == 5

    async def test_what_is_written_to_it_later_counts(self, served: Served) -> None:
        async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
            tasks.add_task(maybe, file)
            await file.seek(1000)
            await file.write(b"a")

        served.adding(adding)
        response = await served.upload(b"a" * 1000)
        assert (response.status_code, "1,001 bytes, the limit is 1,000" in response.text) == (413, True)
        assert await records(served.tasks) == []

    @pytest.mark.parametrize("store", [add(maybe), lambda file, tasks: maybe.enqueue(file)])
    async def test_one_that_a_client_sends_is_answered_with_413(self, served: Served, store: Any) -> None:
        served.adding(store)
        response = await served.upload(b"a" * 1001)
        assert (response.status_code, "1,001 bytes, the limit is 1,000" in response.text) == (413, True)
        assert await records(served.tasks) == []


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "32M"])
def test_the_limit_is_a_number_of_bytes(size: Any) -> None:
    with pytest.raises(InvalidOption, match=r"max_file_size=.*: give a whole number, at least 1"):
        Afterwards(max_file_size=size)


async def test_the_limit_is_32_mib_where_nobody_sets_one(served: Served) -> None:
    upload = UploadFile(io.BytesIO(), size=32 * 1024 * 1024 + 1)
    with pytest.raises(TooLarge, match=r"33,554,433 bytes, the limit is 33,554,432"):
        await maybe.enqueue(upload)


# Where it is kept.


class Witness(MemoryEngine):
    """Remembers what was written, and fails when it is told to."""

    fail_at: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.written: list[list[int]] = []
        self.files: list[str] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        if self.fail_at == len(self.written):
            self.fail_at = None
            raise EngineUnavailable("out of order")
        self.written.append([len(chunk.content) for chunk in chunks])
        self.files += sorted({chunk.file for chunk in chunks} - {*self.files})
        await super().write_chunks(chunks)
        if self.meanwhile:
            await self.meanwhile()


@pytest.fixture
def witness() -> Iterator[Witness]:
    engine = Witness()
    with engines.replaced(lambda url: engine):
        yield engine


async def test_it_is_never_in_memory_as_a_whole(witness: Witness, served: Served) -> None:
    content = os.urandom(CHUNK * 10 + 1)
    served.adding(add(maybe))
    await served.upload(content)
    assert await served.result() == digest(content)
    assert witness.written == [[CHUNK] * 4, [CHUNK] * 4, [CHUNK] * 2 + [1]]


async def test_an_engine_that_fails_in_the_middle_fails_the_request(witness: Witness, served: Served) -> None:
    served.adding(add(maybe))
    witness.fail_at = 1
    response = await served.upload(os.urandom(CHUNK * 10))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert witness.tasks == []
    assert (await served.upload(b"abc")).status_code == 200
    assert await served.result() == digest(b"abc")


async def test_a_flush_that_is_repeated_stores_it_whole(witness: Witness, served: Served) -> None:
    content = os.urandom(CHUNK * 10)

    async def adding(file: UploadFile, tasks: BackgroundTasks) -> TaskHandle[Any]:
        handle = tasks.add_task(maybe, file)
        witness.fail_at = 1
        with pytest.raises(EngineUnavailable):
            await tasks.flush()
        return handle

    served.adding(adding)
    assert (await served.upload(content)).status_code == 200
    assert await served.result() == digest(content)


async def test_a_handler_that_raises_stores_no_file(witness: Witness, served: Served) -> None:
    async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
        tasks.add_task(maybe, file)
        raise HTTPException(400)

    served.adding(adding)
    assert (await served.upload(b"abc")).status_code == 400
    assert witness.written == []


@task
async def jot(text: str) -> None: ...


@pytest.mark.parametrize("mounted", [False, True])
async def test_an_argument_that_a_client_made_too_long_is_answered_with_413(url: str, mounted: bool) -> None:
    app, inner = FastAPI(), FastAPI()
    tasks = Afterwards(app, url)
    app.mount("/inner", inner)

    @(inner if mounted else app).post("/note")
    async def add_note(background_tasks: BackgroundTasks, text: Annotated[str, Body()]) -> None:
        background_tasks.add_task(jot, text)

    async with serving(app) as http:
        response = await http.post("/inner/note" if mounted else "/note", json="a" * 262_144)
        assert response.status_code == 413
        assert response.json() == {"detail": "too large: 262,155 bytes, the limit is 262,144"}
        assert await records(tasks) == []


class TestRefused:
    """Files of a request that is refused take no room in the store."""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"max_queued": 1, "worker": False}

    @pytest.mark.parametrize(
        "store", [add(maybe), lambda file, tasks: maybe.enqueue(file), lambda file, tasks: chain(maybe.call(file))]
    )
    async def test_a_full_queue_is_asked_before_anything_is_written(
        self, witness: Witness, served: Served, store: Any
    ) -> None:
        await maybe.enqueue(None)
        served.adding(store)
        assert [(await served.upload(b"abc")).status_code for _ in range(5)] == [429] * 5
        assert witness.written == []

    async def test_what_was_written_before_a_queue_filled_up_is_deleted_at_once(
        self, witness: Witness, served: Served
    ) -> None:
        async def fill_up() -> None:
            witness.meanwhile = None
            await maybe.enqueue(None)

        witness.meanwhile = fill_up
        served.adding(add(maybe))
        assert (await served.upload(b"abc")).status_code == 429
        assert await content_left(witness) == [b""]

    async def test_what_was_written_beside_a_file_that_is_too_large_is_deleted_at_once(
        self, witness: Witness, served: Served
    ) -> None:
        grown = UploadFile(io.BytesIO(bytes(32 * 1024 * 1024 + 1)))
        with pytest.raises(TooLarge):
            await digests.enqueue([UploadFile(io.BytesIO(b"abc")), grown])
        assert await content_left(witness) == [b"", b""]

    @pytest.mark.parametrize("way", ["enqueue", "flush"])
    async def test_what_was_written_for_a_cancelled_call_is_deleted_at_once(
        self, witness: Witness, served: Served, way: str
    ) -> None:
        async def adding(file: UploadFile, tasks: BackgroundTasks) -> None:
            tasks.add_task(maybe, file)
            task = asyncio.current_task()
            assert task is not None

            async def give_up() -> None:
                task.cancel()
                await asyncio.sleep(TIMEOUT)

            witness.meanwhile = give_up
            await (tasks.flush() if way == "flush" else maybe.enqueue(file))

        async def given_up(file: UploadFile, tasks: BackgroundTasks) -> None:
            try:
                await adding(file, tasks)
            except asyncio.CancelledError as error:
                raise HTTPException(504) from error

        served.adding(given_up)
        assert (await served.upload(b"abc")).status_code == 504
        assert (await content_left(witness), await records(served.tasks)) == ([b""], [])

    async def test_what_was_written_before_the_engine_failed_is_deleted_when_the_request_has_ended(
        self, witness: Witness, served: Served
    ) -> None:
        served.adding(add(maybe))
        witness.fail_at = 1
        assert (await served.upload(os.urandom(CHUNK * 10))).status_code == 503
        assert len(witness.written) == 1
        await until_async(lambda: nothing_left(witness))

    async def test_a_call_that_was_refused_once_is_stored_with_its_file_when_there_is_room(
        self, witness: Witness, served: Served
    ) -> None:
        engine = await served.tasks.client.open()

        async def fill_up() -> None:
            witness.meanwhile = None
            await maybe.enqueue(None)

        async def adding(file: UploadFile, tasks: BackgroundTasks) -> TaskHandle[Any]:
            handle = tasks.add_task(maybe, file)
            with pytest.raises(QueueFull):
                await tasks.flush()
            await engine.cancel([one.id for one in await records(served.tasks)], "make room")
            return handle

        witness.meanwhile = fill_up
        served.adding(adding)
        assert (await served.upload(b"abc")).status_code == 200
        assert (len(witness.written), await content_left(witness)) == (2, [b"abc"])


async def nothing_left(witness: Witness) -> bool:
    return not any(await content_left(witness))


async def content_left(witness: Witness) -> list[bytes]:
    """The content of each file that was ever written, as far as it is there."""
    return [b"".join(await witness.read_chunks(file, start=0, limit=1000)) for file in witness.files]


async def test_it_is_removed_with_its_task(url: str) -> None:
    async with working(url, retention=0) as tasks:
        handle = await describe.enqueue(UploadFile(io.BytesIO(b"abc")))
        await finished(handle)
        engine = await tasks.client.open()
        [stored] = describe.codec.load((await as_stored(handle)).arguments).values()
        assert await engine.read_chunks(stored.id, start=0, limit=1) == [b"abc"]
        await engine.prune(10)
        assert await engine.read_chunks(stored.id, start=0, limit=1) == []


async def test_a_file_that_is_gone_is_a_clear_failure(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with working(url, worker=False) as tasks:
        handle = await describe.enqueue(UploadFile(io.BytesIO(b"abc"), filename="a.txt"))
        opened = (await tasks.client.open())._here()  # type: ignore[attr-defined]
        await opened.writer.call(lambda connection: connection.execute("DELETE FROM afterwards_chunks") and None)
    async with working(url) as tasks:
        record = await finished(await tasks.get(handle.id))
    assert record.state is State.FAILED
    [failure] = record.failures
    assert (failure.kind, failure.type) == (FailureKind.REFUSED, "FileMissing")
    assert failure.message.startswith("task \"describe\": the content of the uploaded file 'a.txt' (")
    assert seen == []


async def test_a_worker_waits_for_an_engine_that_cannot_give_it_the_file(witness: Witness, served: Served) -> None:
    read, failures = witness.read_chunks, iter([EngineUnavailable("out of order")])

    async def failing(file: str, *, start: int, limit: int) -> list[bytes]:
        for error in failures:
            raise error
        return await read(file, start=start, limit=limit)

    witness.read_chunks = failing  # type: ignore[method-assign]
    served.adding(add(maybe))
    await served.upload(b"abc")
    assert await served.result() == digest(b"abc")
    assert witness.tasks[0].failures == ()


# In other processes.

UPLOADS = """
from hashlib import sha256
from fastapi import UploadFile

@task
async def digest(file: UploadFile) -> None:
    write(f"{file.filename} began")
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    write(f"{file.filename} {sha256(await file.read()).hexdigest()}")

tasks = Afterwards(app)

@app.post("/upload")
async def upload(file: UploadFile, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(digest, file)
"""


@pytest.mark.parametrize("worker", ["on", "off"])
def test_a_task_reads_it_after_the_server_was_killed(tmp_path: Path, worker: str) -> None:
    """Once killed while the task has it open, and once before it ever began."""
    write_application(tmp_path, UPLOADS)
    contents = {"small.bin": os.urandom(1000), "large.bin": os.urandom(10_000_000), "empty.bin": b""}
    with uvicorn(tmp_path, AFTERWARDS_WORKER=worker) as server:
        for name, content in contents.items():
            response = httpx.post(f"{server.url}/upload", files={"file": (name, content)}, timeout=TIMEOUT)
            assert response.status_code == 200, server.output
        if worker == "on":
            server.writes(*(f"{name} began" for name in contents))
        else:  # before its request has ended, a task would be due in a minute
            eventually(lambda: [one["state"] for one in record(tmp_path, "digest")] == [State.QUEUED] * len(contents))
        server.signal(signal.SIGKILL)
        server.ends()
    (tmp_path / "go").touch()
    with uvicorn(tmp_path) as server:
        server.writes(*(f"{name} {digest(content)}" for name, content in contents.items()))


# In an application's own tests.


@pytest.mark.afterwards(real=False)
def test_an_upload_of_the_test_client_is_read_within_its_request() -> None:
    app = FastAPI()
    Afterwards(app, "sqlite:///must-not-appear.db")
    handles: list[TaskHandle[Any]] = []

    @app.post("/upload")
    async def upload(file: UploadFile, tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(describe, file))

    with TestClient(app) as client:
        for content in (b"abc", b"", os.urandom(3_000_000)):
            assert client.post("/upload", files={"file": ("a.bin", content)}).status_code == 200
            record: Task = asyncio.run(as_stored(handles[-1]))
            assert record.state is State.SUCCEEDED
            assert digest(content) in (record.result or "")
    assert not Path("must-not-appear.db").exists()
