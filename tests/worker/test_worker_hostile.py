"""However hard it is to describe how an attempt ended, it ends, and the worker goes on."""

import asyncio
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from fractions import Fraction
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer, model_validator

from afterwards import (
    Cancel,
    FailedTask,
    Progress,
    Retry,
    RetryAfter,
    Snooze,
    State,
    TaskHandle,
    TaskRecord,
    progress,
    task,
)
from afterwards.core.retry import Retry as CoreRetry
from afterwards.core.settling import Raised
from afterwards.execution.health import Health
from afterwards.execution.outcomes import outcome_of_function
from afterwards.execution.retrying import keep_running
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class Falsy(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Immovable(Exception):
    def with_traceback(self, tb: Any) -> Any:
        raise SystemExit("with_traceback")

    def add_note(self, note: str) -> None:
        raise SystemExit("add_note")


class Masked(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("whose class is this")


class Liar(Exception):
    @property
    def __class__(self) -> Any:
        return Snooze


class Noted(Exception):
    @property
    def __notes__(self) -> Any:
        raise ValueError("notes")


class Traceless(Exception):
    @property
    def __traceback__(self) -> Any:
        raise ValueError("traceback")

    @property
    def __cause__(self) -> Any:
        raise ValueError("cause")


class Renamed(Exception):
    __qualname__ = "\ud800\0" + "x" * 100_000


class OddText(str):
    def encode(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no bytes")

    def __format__(self, spec: str) -> str:
        raise RuntimeError("no format")


class Odd(Exception):
    def __str__(self) -> str:
        return OddText("odd")


class Base(BaseException):
    pass


class SnoozeWithoutDelay(Snooze):
    def __init__(self) -> None:
        pass


class CancelWithoutReason(Cancel):
    def __init__(self) -> None:
        pass


def made_by_hand() -> BaseException:
    return SyntaxError("by hand", ("file", "line", "column", 3, "x", "y"))  # type: ignore[arg-type]  # on purpose


def retry_after_nothing() -> BaseException:
    error = RetryAfter(1)
    error.delay = "soon"  # type: ignore[assignment]  # on purpose
    return error


def cyclic() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def deep_group() -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(3000):
        error = ExceptionGroup("deep", [error])
    return error


def cancelled_group() -> BaseException:
    return BaseExceptionGroup("all", [asyncio.CancelledError(), KeyboardInterrupt()])


HOSTILE: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Mute, Falsy, Immovable, Masked, Liar, Noted, Traceless, Renamed, Odd, Base),
        *(SnoozeWithoutDelay, CancelWithoutReason, made_by_hand, retry_after_nothing, cyclic, deep_group),
        *(cancelled_group, RecursionError, MemoryError, GeneratorExit, KeyboardInterrupt, SystemExit),
        *(StopIteration, StopAsyncIteration, asyncio.CancelledError, TimeoutError),
    )
}


@task
async def raise_on_the_loop(which: str) -> None:
    raise HOSTILE[which]()


@task
def raise_in_a_thread(which: str) -> None:
    raise HOSTILE[which]()


@task
async def await_a_future_that_raises(which: str) -> None:
    await asyncio.to_thread(raise_in_a_thread.function, which)


@pytest.mark.parametrize("function", [raise_on_the_loop, raise_in_a_thread], ids=lambda value: value.name)
@pytest.mark.parametrize("which", HOSTILE)
async def test_whatever_an_exception_does_when_it_is_described_its_attempt_has_failed(
    url: str, function: Any, which: str
) -> None:
    logging.disable()  # pytest's own handler raises for those that cannot be formatted
    try:
        async with working(url, concurrency=1):
            record = await finished(await function.enqueue(which))
            assert await (await note.enqueue("next")).result(timeout=10) == "next"
    finally:
        logging.disable(logging.NOTSET)
    assert (record.state, len(record.failures)) == (State.FAILED, 1)
    assert len(record.failures[0].type) < 1000


async def test_a_future_that_raises_generator_exit_fails_the_task_that_awaits_it(url: str) -> None:
    async with working(url, concurrency=1):
        record = await finished(await await_a_future_that_raises.enqueue("GeneratorExit"))
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
    assert (record.state, record.failures[0].type) == (State.FAILED, "GeneratorExit")


@pytest.mark.parametrize("which", ["made_by_hand", "Mute", "Traceless", "deep_group"])
async def test_an_exception_that_cannot_be_formatted_is_in_the_log_with_what_can_be(
    url: str, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        await finished(await raise_on_the_loop.enqueue(which))
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    line = record.getMessage()
    assert line.startswith("task failed: raise_on_the_loop")
    assert "raise_on_the_loop" in line.partition("\n")[2] or record.exc_info


class Raising(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise SystemExit("a filter")


class RaisingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("a handler")


@pytest.fixture(params=["filter", "handler", "formatter"])
def broken_log(request: pytest.FixtureRequest) -> Iterator[None]:
    log = logging.getLogger("afterwards.tasks")
    if request.param == "filter":
        log.addFilter(added := Raising())
        yield
        log.removeFilter(added)
        return
    handler: logging.Handler = RaisingHandler()
    if request.param == "formatter":
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(nothing_of_this_name)s"))
        handler.handleError = _raise  # type: ignore[method-assign]  # as pytest's does
    log.addHandler(handler)
    yield
    log.removeHandler(handler)


def _raise(record: logging.LogRecord) -> None:
    raise


@task(retries=Retry(1, wait=0))
async def fail_twice_with_a_broken_log() -> None:
    raise ValueError("broken")


@task
async def cancel_itself_with_a_broken_log() -> None:
    raise Cancel("enough")


@pytest.mark.usefixtures("broken_log")
async def test_a_log_that_raises_changes_nothing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with working(url, concurrency=1):
        record = await finished(await fail_twice_with_a_broken_log.enqueue())
        assert (await finished(await cancel_itself_with_a_broken_log.enqueue())).state is State.CANCELLED
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
    assert (record.state, len(record.failures)) == (State.FAILED, 2)
    assert "ERROR: task failed: fail_twice_with_a_broken_log" in capsys.readouterr().err, "the line is not lost"


@task(retries=Retry(2, wait=3e9, factor=3e9, max_wait=3.1e9, jitter=False))
async def retry_at_the_end_of_time() -> None:
    raise ValueError("broken")


class Picky(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        raise RuntimeError("cannot decide")


class PickyError(Exception, metaclass=Picky):
    pass


@task(retries=Retry(1, wait=0, on=PickyError))
async def retry_what_cannot_be_decided() -> None:
    raise ValueError("broken")


async def _scheduled(handle: TaskHandle[Any]) -> TaskRecord:
    async def look() -> TaskRecord | None:
        record = await handle.status()
        return record if record.retrying else None

    found: TaskRecord = await until_async(look)
    return found


async def test_a_wait_that_no_clock_can_show_is_cut_to_the_longest(url: str) -> None:
    async with working(url, concurrency=1):
        handle = await retry_at_the_end_of_time.enqueue()
        waiting = await _scheduled(handle)
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        assert (await handle.cancel()).state is State.CANCELLED
    assert waiting.run_at and waiting.run_at.year > 2100


async def test_a_retry_rule_that_raises_is_no_obstacle(url: str) -> None:
    async with working(url, concurrency=1):
        record = await finished(await retry_what_cannot_be_decided.enqueue())
    assert record.state is State.FAILED


def test_waits_are_spans_whatever_they_are_made_of() -> None:
    for retry in (
        CoreRetry(9, wait=3e9, factor=3e9, max_wait=3.1e9, jitter=False),
        CoreRetry(9, wait=0, factor=3e9, max_wait=3e9),
    ):
        for failed in (1, 2, 3000):
            assert retry.delay(failed, 0.5).days <= 36500


def test_what_is_outcome_of_function_an_exception_is_asked_of_its_class() -> None:
    assert isinstance(outcome_of_function(Liar()), Raised)
    assert isinstance(outcome_of_function(SnoozeWithoutDelay()), Raised)


class Broken:
    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2))

    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__

    def __float__(self) -> float:
        raise RuntimeError("no number")


class Endless(Broken):
    def __len__(self) -> int:
        return 2**70


@task
async def show_what_cannot_be_shown(which: str) -> str:
    match which:
        case "huge":
            with progress(total=10**5000) as bar:
                bar.update(10**400)
        case "fraction":
            with progress(total=Fraction(10**400, 3)) as bar:  # type: ignore[arg-type]  # on purpose
                bar.update(Fraction(1, 3))  # type: ignore[arg-type]  # on purpose
        case "endless" | "nan":
            with progress(total=float("inf" if which == "endless" else "nan")) as bar:
                bar.update(float("nan"))
        case "length" | "too long":
            for _ in progress(Broken() if which == "length" else Endless()):
                pass
        case "text":
            with progress(total=2, desc=Broken(), unit=Broken()) as bar:  # type: ignore[arg-type]  # on purpose
                bar.set_postfix(loss=Broken())
                bar.set_description(Broken())  # type: ignore[arg-type]  # on purpose
        case "attributes":
            with progress(total=2) as bar:
                bar.n = bar.total = bar.desc = Broken()  # type: ignore[assignment]  # on purpose
        case "surrogates":
            with progress(total=2, desc="\ud800\0") as bar:
                bar.update()
    the_diary.append(which)
    return "done"


@pytest.mark.parametrize(
    "which",
    ["huge", "fraction", "endless", "nan", "length", "too long", "text", "attributes", "surrogates"],
)
async def test_progress_that_cannot_be_shown_changes_nothing(url: str, which: str) -> None:
    async with working(url, concurrency=1, lease=1):
        handle = await show_what_cannot_be_shown.enqueue(which)
        record = await finished(handle)
        assert await handle.result(timeout=1) == "done"
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
    shown = record.progress
    assert shown is None or Progress.of_text(shown.to_text()) == shown
    assert shown is None or shown.fraction is None or 0 <= shown.fraction <= 1


class Shy(BaseModel):
    @model_serializer
    def serialise(self) -> dict[str, Any]:
        raise SystemExit("no")


class Endlessly(BaseModel):
    @model_serializer
    def serialise(self) -> dict[str, Any]:
        raise MemoryError


@task
async def return_what_cannot_be_written(which: str) -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return {"shy": Shy(), "memory": Endlessly(), "circle": circle, "masked": Masked(), "huge": 10**5000}[which]


@pytest.mark.parametrize("which", ["shy", "memory", "circle", "masked", "huge"])
async def test_a_result_that_cannot_be_written_undoes_nothing(url: str, which: str) -> None:
    async with working(url, concurrency=1):
        record = await finished(await return_what_cannot_be_written.enqueue(which))
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
    assert record.state is State.SUCCEEDED


def tell_by_raising(failed: FailedTask) -> None:
    the_diary.append("told")
    raise HOSTILE[failed.message]()


async def tell_by_raising_on_the_loop(failed: FailedTask) -> None:
    tell_by_raising(failed)


@task(on_failure=tell_by_raising)
async def told_badly(which: str) -> None:
    raise ValueError(which)


@task(on_failure=tell_by_raising_on_the_loop)
async def told_badly_on_the_loop(which: str) -> None:
    raise ValueError(which)


@pytest.mark.parametrize("function", [told_badly, told_badly_on_the_loop], ids=lambda value: value.name)
@pytest.mark.parametrize("which", ["KeyboardInterrupt", "GeneratorExit", "CancelledError", "Mute", "made_by_hand"])
async def test_who_is_told_of_a_failure_may_raise_anything(
    url: str, said: list[str], function: Any, which: str
) -> None:
    logging.disable()  # as above
    try:
        async with working(url, concurrency=1):
            assert (await finished(await function.enqueue(which))).state is State.FAILED
            await until(lambda: said == ["told"])
            assert await (await note.enqueue("next")).result(timeout=10) == "next"
    finally:
        logging.disable(logging.NOTSET)


class Refusing(BaseModel):
    """An argument whose validator ends programs when it reads what is stored."""

    kind: str

    @model_validator(mode="after")
    def refuse(self) -> "Refusing":
        if not making.get():
            raise HOSTILE[self.kind]()
        return self


making: ContextVar[bool] = ContextVar("making", default=False)


@task
async def take_refusing(argument: Refusing) -> None: ...


@pytest.mark.parametrize("which", ["KeyboardInterrupt", "GeneratorExit", "CancelledError"])
async def test_a_validator_may_raise_anything_when_an_argument_is_read(
    url: str, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    async with working(url, worker=False):
        token = making.set(True)
        await take_refusing.enqueue(Refusing(kind=which))
        making.reset(token)
    async with working(url) as tasks:
        await until(lambda: any("cannot run with this code" in one.getMessage() for one in caplog.records))
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        assert [one.state for one in await tasks.list(name=take_refusing)] == [State.QUEUED]
        assert tasks.healthy


class Fails:
    """A part of a worker that fails once in some way, and then does its work."""

    def __init__(self, error: BaseException) -> None:
        self.errors = [error]

    async def run(self) -> None:
        if self.errors:
            raise self.errors.pop()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError])
async def test_a_part_of_the_worker_is_started_again_whatever_it_raised(kind: type[BaseException]) -> None:
    health, part = Health(), Fails(kind("from somewhere"))
    await asyncio.wait_for(keep_running("do its work", part.run, health), 10)
    assert part.errors == []


async def test_a_part_of_the_worker_that_is_cancelled_ends() -> None:
    part = asyncio.create_task(keep_running("wait", asyncio.Event().wait, Health()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    part.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(part, 10)
