"""Functions that are no coroutines run in threads of their own; whatever a function raises stays its own affair."""

import asyncio
import contextvars
import logging
import threading
from typing import Annotated, Any

import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI

from afterwards import Afterwards, BackgroundTasks, State, task
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

gate = threading.Event()
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of nobody")


@task
def wait_for_the_gate() -> None:
    the_diary.append("waiting")
    gate.wait(30)


@task
def exit_in_thread() -> None:
    raise SystemExit(3)


@task
async def exit_in_coroutine() -> None:
    raise SystemExit(3)


@task
def stop_iterating() -> None:
    next(iter(()))


@task
async def cancel_itself() -> None:
    raise asyncio.CancelledError


@task
def raise_cancelled_in_thread() -> None:
    raise asyncio.CancelledError


@task
async def cancel_the_current_task() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(60)


@task
def raise_unprintable() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Unprintable


@task
async def raise_surrogates() -> None:
    raise ValueError("\ud800 \x00")


@task
def name_of_the_thread() -> str:
    return threading.current_thread().name


@task
def set_a_variable() -> str:
    before = variable.get()
    variable.set("of the task")
    return before


@task
async def set_a_variable_on_the_loop() -> str:
    before = variable.get()
    variable.set("of the task")
    return before


@task
async def id_of_the_loop() -> int:
    return id(asyncio.get_running_loop())


threads_of_dependencies: list[threading.Thread] = []


def note_its_thread() -> None:
    threads_of_dependencies.append(threading.current_thread())


@task
async def depend_on_a_thread(nothing: Annotated[None, Depends(note_its_thread)]) -> None: ...


@pytest.fixture(autouse=True)
def open_gate() -> Any:
    gate.clear()
    yield
    gate.set()


async def test_sixty_waiting_tasks_delay_no_endpoint(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url, concurrency=60, threads=60)

    @app.get("/add")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(wait_for_the_gate)

    @app.get("/")
    def endpoint() -> str:
        return "quick"

    async with serving(app) as http:
        await asyncio.gather(*(http.get("/add") for _ in range(60)))
        await until(lambda: len(said) == 60)
        assert (await http.get("/")).json() == "quick"
        assert await anyio.to_thread.run_sync(lambda: "quick") == "quick"
        gate.set()


async def test_there_are_as_many_threads_as_the_option_says(url: str, said: list[str]) -> None:
    async with working(url, threads=2):
        for _ in range(5):
            await wait_for_the_gate.enqueue()
        await until(lambda: len(said) == 2)
        assert await (await id_of_the_loop.enqueue()).result(timeout=10)  # coroutines need no thread
        assert len(said) == 2
        gate.set()
        await until(lambda: len(said) == 5)


async def test_coroutines_run_on_the_event_loop_of_the_application(url: str) -> None:
    async with working(url):
        assert await (await id_of_the_loop.enqueue()).result(timeout=10) == id(asyncio.get_running_loop())


async def test_threads_are_ours(url: str) -> None:
    async with working(url):
        assert (await (await name_of_the_thread.enqueue()).result(timeout=10)).startswith("afterwards-")


async def test_the_threads_of_dependencies_end_with_their_worker(url: str) -> None:
    async with working(url):
        await (await depend_on_a_thread.enqueue()).result(timeout=10)  # type: ignore[call-arg]
    [thread] = threads_of_dependencies
    await until(lambda: not thread.is_alive())


@pytest.mark.parametrize("function", [set_a_variable, set_a_variable_on_the_loop])
async def test_tasks_see_no_context_of_the_request_and_none_of_each_other(url: str, function: Any) -> None:
    async with working(url):
        variable.set("of the request")
        assert await (await function.enqueue()).result(timeout=10) == "of nobody"
        assert await (await function.enqueue()).result(timeout=10) == "of nobody"


@pytest.mark.parametrize(
    ("function", "type_"),
    [
        (exit_in_thread, "SystemExit"),
        (exit_in_coroutine, "SystemExit"),
        (stop_iterating, "StopIteration"),
        (cancel_itself, "CancelledError"),
        (raise_cancelled_in_thread, "CancelledError"),
        (cancel_the_current_task, "CancelledError"),
        (raise_unprintable, "Unprintable"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_whatever_a_function_raises_is_its_failure_and_the_worker_goes_on(
    url: str, function: Any, type_: str
) -> None:
    async with working(url, concurrency=1):
        record = await finished(await function.enqueue())
        assert record.state is State.FAILED
        assert type_ in record.failures[0].type
        assert await (await note.enqueue("next")).result(timeout=10) == "next"


async def test_a_message_that_no_store_can_keep_is_kept_as_well_as_it_goes(url: str) -> None:
    logging.disable()  # pytest-xdist cannot send such a line
    try:
        async with working(url):
            [failure] = (await finished(await raise_surrogates.enqueue())).failures
            assert await (await note.enqueue("next")).result(timeout=10) == "next"
    finally:
        logging.disable(logging.NOTSET)
    assert failure.message.startswith("? ")


async def test_one_whose_coroutine_somebody_cancels_keeps_its_slot_until_its_thread_ends(
    url: str, said: list[str]
) -> None:
    """As application code does that cancels all tasks of the event loop but its own."""
    async with working(url, concurrency=1):
        handle = await wait_for_the_gate.enqueue()
        await until(lambda: said == ["waiting"])
        for one in asyncio.all_tasks():
            if "_attempt" in repr(one.get_coro()):
                one.cancel()
        next_one = await note.enqueue("next")
        await asyncio.sleep(0)
        assert said == ["waiting"]
        gate.set()
        assert (await finished(handle)).state is State.FAILED
        assert await next_one.result(timeout=10) == "next"
