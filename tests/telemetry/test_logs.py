"""What is logged during an attempt is in the record of its task, however the attempt ends."""

import asyncio
import io
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afterwards import Cancel, Retry, Snooze, State, TaskHandle, task
from afterwards.core.task import LogLine
from afterwards.execution.log_capture import MESSAGE_LIMIT, line_of
from face.processes import output
from face.serving import finished, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

log = logging.getLogger("shop.orders")
gates: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def at_info() -> Iterator[None]:
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)
    gates.clear()


async def lines(handle: TaskHandle[Any]) -> tuple[LogLine, ...]:
    return (await handle.status()).logs


async def messages(handle: TaskHandle[Any]) -> list[str]:
    return [line.message for line in await lines(handle)]


@task
async def pack(order: int) -> None:
    log.debug("nobody wants to know")
    log.info("packing order %d", order)
    await asyncio.sleep(0)
    log.warning("it is heavy")


@task
def pack_in_a_thread(order: int) -> None:
    log.info("packing order %d", order)
    inner = threading.Thread(target=log.info, args=("not of this attempt",))
    inner.start()
    inner.join()


@task(retries=Retry(1, wait=0))
async def fail() -> None:
    try:
        raise ValueError("no paper")
    except ValueError:
        log.exception("printing failed")
    raise RuntimeError("no label")


@task
async def snooze_once() -> None:
    log.info("looked")
    if len(gates) == 0:
        gates.append(asyncio.Event())
        raise Snooze(0.01)


@task
async def give_up() -> None:
    log.info("gives up")
    raise Cancel("not today")


@task(timeout=0.1)
async def take_too_long() -> None:
    log.info("begins")
    await asyncio.sleep(60)


@task
async def wait_for_ever() -> None:
    log.info("waits")
    gates.append(asyncio.Event())
    await gates[-1].wait()


class Unprintable:
    def __str__(self) -> str:
        raise SystemExit("no text")


@task
async def log_anything() -> None:
    log.info("a NUL \0 and half a character \ud800")
    log.info("x" * 100_000)


@task
async def log_in_its_own_way() -> None:
    log.info("dropped by a filter")
    log.info("my password is swordfish")
    logging.getLogger("shop.quiet").warning("does not propagate")
    logging.getLogger("afterwards.tasks").warning("ours")


@task
async def stay_quiet() -> None:
    pass


@task(run_in="process")
def pack_elsewhere(order: int) -> None:
    logging.getLogger("shop.elsewhere").warning("packing order %d", order)


@task(run_in="process", timeout=1)
def hang_elsewhere() -> None:
    logging.getLogger("shop.elsewhere").warning("begins")
    time.sleep(60)


async def test_lines_are_in_the_record_with_time_level_logger_and_attempt(url: str) -> None:
    async with working(url) as tasks:
        handle = await pack.enqueue(7)
        record = await finished(handle)
        [first, second] = record.logs
        assert (first.level, first.logger, first.message) == ("INFO", "shop.orders", "packing order 7")
        assert (second.level, second.message, second.attempt) == ("WARNING", "it is heavy", 1)
        assert record.started_at and record.finished_at and abs(first.at - record.started_at).total_seconds() < 30
        assert first.at <= second.at
        assert (await tasks.list())[0].logs == (), "only the record of one task has them"


async def test_a_function_in_a_thread_logs_to_its_own_attempt(url: str) -> None:
    async with working(url):
        first, second = await pack_in_a_thread.enqueue(1), await pack_in_a_thread.enqueue(2)
        await finished(first), await finished(second)
        assert [await messages(first), await messages(second)] == [["packing order 1"], ["packing order 2"]]


async def test_each_attempt_that_fails_keeps_its_lines_with_the_exception(url: str) -> None:
    async with working(url):
        handle = await fail.enqueue()
        record = await finished(handle)
    assert record.state is State.FAILED
    assert [line.attempt for line in record.logs] == [1, 2]
    assert record.logs[0].message.startswith("printing failed\nTraceback")
    assert record.logs[0].message.endswith("ValueError: no paper")


@pytest.mark.parametrize(
    ("function", "expected"),
    [(snooze_once, ["looked", "looked"]), (give_up, ["gives up"]), (take_too_long, ["begins"])],
    ids=lambda value: getattr(value, "name", None),
)
async def test_lines_are_kept_however_the_attempt_ends(url: str, function: Any, expected: list[str]) -> None:
    async with working(url):
        handle = await function.enqueue()
        await finished(handle)
        assert await messages(handle) == expected


async def test_an_attempt_that_is_released_at_the_shutdown_keeps_its_lines(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    async with working(url, grace=0.01):
        handle = await wait_for_ever.enqueue()
        await until(lambda: gates)
    async with working(url, worker=False) as tasks:
        record = await (await tasks.get(handle.id)).status()
    assert (record.state, [line.message for line in record.logs]) == (State.QUEUED, ["waits"])


async def test_what_stores_refuse_is_replaced_and_a_long_line_is_cut(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "propagate", False)  # pytest-xdist cannot send half a character in a report
    async with working(url):
        handle = await log_anything.enqueue()
        record = await finished(handle)
    assert record.state is State.SUCCEEDED
    first, second = [line.message for line in record.logs]
    assert first == "a NUL \N{REPLACEMENT CHARACTER} and half a character ?"
    assert MESSAGE_LIMIT - 20 < len(second) <= MESSAGE_LIMIT


@pytest.mark.parametrize(
    ("message", "argument"), [("%d apples", "many"), ("%s", Unprintable())], ids=["misfit", "text"]
)
def test_a_record_that_cannot_be_formatted_is_shown_by_its_message(message: str, argument: object) -> None:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, message, (argument,), None)
    assert line_of(record, 1).message == message


def test_an_exception_that_cannot_be_formatted_is_a_line_nevertheless() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise SystemExit("no text")

    error = Unreadable()
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "no", (), (Unreadable, error, None))
    assert line_of(record, 1).message.startswith("no\n")


async def test_filters_and_quiet_loggers_are_respected_and_our_own_lines_left_out(url: str) -> None:
    class Redacting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg = record.msg.replace("swordfish", "***")
            return True

    quiet, handler = logging.getLogger("shop.quiet"), logging.StreamHandler(io.StringIO())
    quiet.propagate = False
    handler.addFilter(Redacting())
    log.addHandler(handler)
    log.addFilter(dropping := lambda record: "dropped" not in record.msg)
    try:
        async with working(url):
            handle = await log_in_its_own_way.enqueue()
            await finished(handle)
            assert await messages(handle) == ["my password is ***", "does not propagate"]
    finally:
        log.removeFilter(dropping)
        log.removeHandler(handler)
        quiet.propagate = True


async def test_an_attempt_that_logs_nothing_has_no_lines(url: str) -> None:
    async with working(url):
        handle = await stay_quiet.enqueue()
        assert (await finished(handle)).logs == ()


async def test_a_process_of_its_own_sends_its_lines(url: str) -> None:
    async with working(url):
        handle = await pack_elsewhere.enqueue(3)
        await finished(handle)
        [line] = await lines(handle)
        assert (line.level, line.logger, line.message) == ("WARNING", "shop.elsewhere", "packing order 3")


async def test_a_process_that_was_killed_has_sent_its_lines(url: str) -> None:
    async with working(url):
        handle = await hang_elsewhere.enqueue()
        record = await finished(handle)
        assert record.state is State.FAILED
        assert [line.message for line in record.logs] == ["begins"]


async def test_logging_is_as_before_once_no_worker_runs(url: str, tmp_path: Path) -> None:
    before = logging.Logger.callHandlers
    async with working(url):
        async with working(f"sqlite:///{tmp_path / 'others.db'}"):
            assert logging.Logger.callHandlers is not before
        handle = await pack.enqueue(1)
        await until_async(lambda: lines(handle))
        assert len(await lines(handle)) == 2, "each line once"
    assert logging.Logger.callHandlers is before


def test_a_worker_changes_nothing_for_an_application_that_has_not_configured_logging(tmp_path: Path) -> None:
    """A handler at the root logger would silence Python's handler of last resort, and make basicConfig do nothing."""
    program = """
        import asyncio, contextlib, logging, sys
        from fastapi import FastAPI
        from afterwards import Afterwards, task

        sys.stderr = sys.stdout
        logging.lastResort = logging.StreamHandler(sys.stdout)
        app = FastAPI()
        tasks = Afterwards(app)

        @task
        async def work(number: int) -> None:
            logging.getLogger("shop").warning("warned %d", number)

        async def main() -> None:
            async with app.router.lifespan_context(app):
                await (await work.enqueue(1)).result(timeout=20)
                logging.basicConfig(format="configured: %(message)s", stream=sys.stdout)
                await (await work.enqueue(2)).result(timeout=20)

        asyncio.run(main())
    """
    said = output(program, tmp_path)
    assert "warned 1" in said and "configured: warned 2" in said
