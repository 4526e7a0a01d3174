"""``Depends`` inside task functions."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import fastapi
import httpx
import pytest
import starlette.background
from fastapi import (
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    Path,
    Query,
    Request,
    Response,
    Security,
    UploadFile,
    WebSocket,
)
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel, Field
from starlette.datastructures import State
from starlette.requests import HTTPConnection
from typing_extensions import TypeAliasType

from afterwards import BackgroundTasks
from afterwards.core.errors import (
    AfterwardsError,
    InvalidDependency,
    NeedsHttp,
    NoHttpRequest,
    SwallowedException,
    UnresolvedAnnotation,
)
from afterwards.execution.dependencies import Cleanup, Resolver
from afterwards.execution.dependency_plan import plan

pytestmark = pytest.mark.anyio


class Worker:
    """Runs task functions as the worker does: resolves, calls, cleans up."""

    def __init__(self, app: FastAPI, threads: int = 5, state: dict[str, Any] | None = None) -> None:
        self.limiter = anyio.CapacityLimiter(threads)
        self.resolver = Resolver(app=app, limiter=self.limiter, state=state or {})

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        planned = plan(function, name=function.__name__)
        async with Cleanup() as cleanup:
            return await function(*args, **await self.resolver.solve(planned, cleanup))


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


@pytest.fixture
async def worker(app: FastAPI) -> AsyncIterator[Worker]:
    worker = Worker(app)
    yield worker
    worker.resolver.close()


async def over_http(app: FastAPI, endpoint: Callable[..., Any]) -> httpx.Response:
    """What FastAPI itself makes of a function with the same dependencies."""
    app.get("/")(endpoint)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/")


async def number() -> int:
    return 7


def threaded() -> threading.Thread:
    return threading.current_thread()


# Values


async def test_a_function_without_dependencies_has_an_empty_plan(worker: Worker) -> None:
    async def task(user_id: int, note: str = "") -> None: ...

    planned = plan(task, name="task")
    assert planned.parameters == ()
    assert planned.injected == frozenset()
    assert await worker.resolver.solve(planned, Cleanup()) == {}


async def test_a_plan_names_the_injected_parameters_and_no_others() -> None:
    async def task(user_id: int, a: Annotated[int, Depends(number)], b: int = Depends(number)) -> None: ...

    assert plan(task, name="task").injected == {"a", "b"}


async def test_both_ways_to_declare_give_the_value(worker: Worker) -> None:
    async def task(email: str, a: Annotated[int, Depends(number)], b: int = Depends(number)) -> tuple[str, int, int]:
        return email, a, b

    assert await worker.run(task, "x@y.z") == ("x@y.z", 7, 7)


async def test_a_default_beside_an_annotated_dependency_is_not_used(worker: Worker) -> None:
    async def task(a: Annotated[int | None, Depends(number)] = None) -> int | None:
        return a

    assert await worker.run(task) == 7


async def test_dependencies_nest(worker: Worker) -> None:
    async def double(n: Annotated[int, Depends(number)]) -> int:
        return 2 * n

    async def quadruple(n: Annotated[int, Depends(double)], m: int = Depends(number)) -> int:
        return 2 * n + m

    async def task(n: Annotated[int, Depends(quadruple)]) -> int:
        return n

    assert await worker.run(task) == 35


async def test_a_class_is_called_with_what_its_init_depends_on(worker: Worker) -> None:
    class Service:
        def __init__(self, n: Annotated[int, Depends(number)], page: int = 3) -> None:
            self.numbers = n, page

    async def task(service: Annotated[Service, Depends(Service)]) -> Service:
        return service

    assert (await worker.run(task)).numbers == (7, 3)


async def test_a_class_is_made_whatever_its_instances_do_when_called(worker: Worker) -> None:
    class Connect:
        async def __call__(self) -> AsyncIterator[int]:
            yield 1

    async def task(connect: Annotated[Connect, Depends(Connect)]) -> Any:
        return connect

    assert isinstance(await worker.run(task), Connect)


async def test_the_last_of_several_annotations_counts(worker: Worker) -> None:
    async def dependency(n: Annotated[int, Query(), Depends(number)]) -> int:
        return n

    async def task(n: Annotated[int, Depends(lambda: 1), Depends(dependency)]) -> int:
        return n

    assert await worker.run(task) == 7


async def test_depends_without_argument_takes_the_annotation(worker: Worker) -> None:
    @dataclass
    class Service:
        n: Annotated[int, Depends(number)]

    async def task(a: Annotated[Service, Depends()], b: Service = Depends()) -> tuple[Service, Service]:
        return a, b

    a, b = await worker.run(task)
    assert a.n == 7
    assert a is b


async def test_instances_methods_partials_and_lambdas_are_called(worker: Worker) -> None:
    class Adder:
        def __init__(self, by: int) -> None:
            self.by = by

        async def __call__(self, n: Annotated[int, Depends(number)]) -> int:
            return n + self.by

        async def method(self, n: Annotated[int, Depends(number)]) -> int:
            return n - self.by

    async def scaled(factor: int, n: Annotated[int, Depends(number)], *, shift: int) -> int:
        return factor * n + shift

    async def task(
        a: Annotated[int, Depends(Adder(1))],
        b: Annotated[int, Depends(Adder(1).method)],
        c: Annotated[int, Depends(partial(scaled, 10, shift=5))],
        d: Annotated[int, Depends(lambda: 4)],
    ) -> tuple[int, ...]:
        return a, b, c, d

    assert await worker.run(task) == (8, 6, 75, 4)


async def test_instances_that_yield_are_generators(worker: Worker) -> None:
    class Sync:
        def __call__(self) -> Iterator[int]:
            yield 1

    class Async:
        async def __call__(self) -> AsyncIterator[int]:
            yield 2

    async def task(
        a: Annotated[int, Depends(Sync())],
        b: Annotated[int, Depends(Async())],
        c: Annotated[int, Depends(partial(Async()))],
    ) -> tuple[int, ...]:
        return a, b, c

    assert await worker.run(task) == (1, 2, 2)


async def test_a_decorated_function_is_what_it_wraps(worker: Worker) -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @logged
    async def add(n: Annotated[int, Depends(number)]) -> int:
        return n + 1

    @logged
    async def opened(n: Annotated[int, Depends(number)]) -> AsyncIterator[int]:
        yield n + 2

    @logged
    async def task(email: str, a: Annotated[int, Depends(add)], b: Annotated[int, Depends(opened)]) -> tuple[int, int]:
        return a, b

    assert await worker.run(task, "x@y.z") == (8, 9)


async def test_security_is_a_dependency(worker: Worker) -> None:
    async def task(n: Annotated[int, Security(number, scopes=["read"])]) -> int:
        return n

    assert await worker.run(task) == 7


async def test_scope_changes_nothing(worker: Worker) -> None:
    closed = []

    async def opened() -> AsyncIterator[int]:
        yield 1
        closed.append(1)

    async def task(n: Annotated[int, Depends(opened, scope="function")]) -> list[int]:
        return list(closed)

    assert await worker.run(task) == []
    assert closed == [1]


@pytest.mark.skipif("max_concurrency" not in inspect.signature(Depends).parameters, reason="newer FastAPI only")
async def test_max_concurrency_changes_nothing(worker: Worker) -> None:
    async def task(n: Annotated[int, Depends(number, **{"max_concurrency": 1})]) -> int:
        return n

    assert await worker.run(task) == 7


async def test_a_dependency_parameter_with_a_plain_default_keeps_it(worker: Worker) -> None:
    class Filters(BaseModel):
        limit: int = 10

    async def dependency(page: int = 2, tags: list[str] | None = None, filters: Filters = Filters()) -> Any:  # noqa: B008
        return page, tags, filters.limit

    async def task(values: Annotated[Any, Depends(dependency)]) -> Any:
        return values

    assert await worker.run(task) == (2, None, 10)


# Caching


async def test_a_dependency_is_called_once_for_each_attempt(worker: Worker) -> None:
    calls = []

    async def counted() -> int:
        calls.append(1)
        return len(calls)

    async def between(n: Annotated[int, Depends(counted)]) -> int:
        return n

    async def task(a: Annotated[int, Depends(counted)], b: Annotated[int, Depends(between)]) -> tuple[int, int]:
        return a, b

    assert await worker.run(task) == (1, 1)
    assert await worker.run(task) == (2, 2)


async def test_use_cache_false_calls_again(worker: Worker) -> None:
    calls = []

    async def counted() -> int:
        calls.append(1)
        return len(calls)

    async def task(
        a: Annotated[int, Depends(counted)],
        b: Annotated[int, Depends(counted, use_cache=False)],
        c: Annotated[int, Depends(counted)],
    ) -> tuple[int, ...]:
        return a, b, c

    assert await worker.run(task) == (1, 2, 1)


async def test_none_is_cached_too(worker: Worker) -> None:
    calls = []

    async def nothing() -> None:
        calls.append(1)

    async def task(a: Annotated[None, Depends(nothing)], b: Annotated[None, Depends(nothing)]) -> None: ...

    await worker.run(task)
    assert calls == [1]


# Overrides


async def test_an_override_stands_in_with_its_own_dependencies(app: FastAPI, worker: Worker) -> None:
    async def fake(n: Annotated[int, Depends(number)]) -> int:
        return -n

    async def real() -> int:
        raise AssertionError

    async def between(n: Annotated[int, Depends(real)]) -> int:
        return n

    async def task(a: Annotated[int, Depends(between)], b: Annotated[int, Depends(real)]) -> tuple[int, int]:
        return a, b

    app.dependency_overrides[real] = fake
    assert await worker.run(task) == (-7, -7)
    app.dependency_overrides[number] = lambda: 1
    assert await worker.run(task) == (-1, -1)


async def test_overrides_are_looked_up_for_each_attempt(app: FastAPI, worker: Worker) -> None:
    async def task(n: Annotated[int, Depends(number)]) -> int:
        return n

    planned = plan(task, name="task")

    async def run() -> Any:
        async with Cleanup() as cleanup:
            return (await worker.resolver.solve(planned, cleanup))["n"]

    app.dependency_overrides[number] = lambda: 1
    assert await run() == 1
    app.dependency_overrides[number] = lambda: 2
    assert await run() == 2
    app.dependency_overrides = {number: lambda: 3}
    assert await run() == 3
    app.dependency_overrides.clear()
    assert await run() == 7


async def test_an_override_is_planned_once(app: FastAPI, worker: Worker) -> None:
    async def task(n: Annotated[int, Depends(number)]) -> int:
        return n

    async def fake() -> int:
        return 1

    app.dependency_overrides[number] = fake
    [(_, node)] = plan(task, name="task").parameters
    assert worker.resolver.overriding(node, fake) is worker.resolver.overriding(node, fake)


async def test_an_override_that_needs_http_fails_with_the_chain(app: FastAPI, worker: Worker) -> None:
    async def fake(x_token: Annotated[str, Header()]) -> int:
        return 1

    async def task(n: Annotated[int, Depends(number)]) -> int:
        return n

    app.dependency_overrides[number] = fake
    with pytest.raises(NeedsHttp, match=r"^task task -> fake \(overriding number\) -> parameter x_token is read from"):
        await worker.run(task)


async def test_a_generator_may_override(app: FastAPI, worker: Worker) -> None:
    closed = []

    async def fake() -> AsyncIterator[int]:
        yield 1
        closed.append(1)

    async def task(n: Annotated[int, Depends(number)]) -> int:
        assert closed == []
        return n

    app.dependency_overrides[number] = fake
    assert await worker.run(task) == 1
    assert closed == [1]


# Threads


async def test_sync_dependencies_run_in_threads_under_the_given_limit_only(worker: Worker) -> None:
    default = anyio.to_thread.current_default_thread_limiter()
    seen: list[tuple[str, bool, float, float]] = []

    def note(what: str) -> None:
        in_thread = threading.current_thread() is not threading.main_thread()
        seen.append((what, in_thread, worker.limiter.borrowed_tokens, default.borrowed_tokens))

    def plain() -> None:
        note("plain")

    def opened() -> Iterator[None]:
        note("enter")
        yield
        note("exit")

    class Service:
        def __init__(self) -> None:
            note("class")

    async def task(
        a: Annotated[None, Depends(plain)], b: Annotated[None, Depends(opened)], c: Annotated[Service, Depends()]
    ) -> None: ...

    await worker.run(task)
    assert seen == [(what, True, 1, 0) for what in ("plain", "enter", "class", "exit")]
    assert worker.limiter.borrowed_tokens == 0


async def test_async_dependencies_run_on_the_loop(worker: Worker) -> None:
    async def loop() -> Any:
        return asyncio.get_running_loop()

    async def task(loop: Annotated[Any, Depends(loop)]) -> Any:
        return loop

    assert await worker.run(task) is asyncio.get_running_loop()


async def test_a_full_limit_does_not_keep_a_generator_from_closing(app: FastAPI) -> None:
    """One connection, one thread: who waits for the connection has the thread, who has the connection must close."""
    worker = Worker(app, threads=1)
    connection = threading.Semaphore(1)
    second_waits = anyio.Event()

    def connected() -> Iterator[None]:
        if not connection.acquire(blocking=False):
            anyio.from_thread.run_sync(second_waits.set)
            assert connection.acquire(timeout=5)
        yield
        connection.release()

    async def first(c: Annotated[None, Depends(connected)]) -> None:
        group.start_soon(worker.run, second)
        await second_waits.wait()

    async def second(c: Annotated[None, Depends(connected)]) -> None: ...

    with anyio.fail_after(3):
        async with anyio.create_task_group() as group:
            await worker.run(first)


# Generators


def generators(log: list[str]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A synchronous generator, and an asynchronous one that depends on it; both log what happens to them."""

    def outer() -> Iterator[str]:
        log.append("open outer")
        try:
            yield "outer"
        except Exception as error:
            log.append(f"rollback outer {error!r}")
            raise
        else:
            log.append("commit outer")
        finally:
            log.append("close outer")

    async def inner(value: Annotated[str, Depends(outer)]) -> AsyncIterator[str]:
        log.append("open inner")
        try:
            yield f"{value}.inner"
        except Exception as error:
            await anyio.lowlevel.checkpoint()
            log.append(f"rollback inner {error!r}")
            raise
        else:
            log.append("commit inner")
        finally:
            log.append("close inner")

    return outer, inner


async def test_generators_close_after_the_task_last_first(worker: Worker) -> None:
    log: list[str] = []
    _, inner = generators(log)

    async def task(value: Annotated[str, Depends(inner)]) -> None:
        log.append(value)

    await worker.run(task)
    assert log == [
        "open outer",
        "open inner",
        "outer.inner",
        "commit inner",
        "close inner",
        "commit outer",
        "close outer",
    ]


async def test_what_the_task_raises_is_thrown_into_the_generators(worker: Worker) -> None:
    log: list[str] = []
    _, inner = generators(log)

    async def task(value: Annotated[str, Depends(inner)]) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await worker.run(task)
    assert log[2:] == [
        "rollback inner ValueError('no')",
        "close inner",
        "rollback outer ValueError('no')",
        "close outer",
    ]


@pytest.mark.parametrize("raises", [False, True])
async def test_generators_see_what_they_see_in_fastapi(app: FastAPI, worker: Worker, raises: bool) -> None:
    log: list[str] = []
    outer, inner = generators(log)

    async def task(a: Annotated[str, Depends(inner)], b: Annotated[str, Depends(outer, use_cache=False)]) -> None:
        log.append(f"{a} {b}")
        if raises:
            raise ValueError("no")

    assert (await over_http(app, task)).status_code == (500 if raises else 200)
    in_fastapi = log.copy()
    log.clear()
    if raises:
        with pytest.raises(ValueError, match="no"):
            await worker.run(task)
    else:
        await worker.run(task)
    assert log == in_fastapi


async def test_a_dependency_that_fails_rolls_back_those_before_it(worker: Worker) -> None:
    log: list[str] = []
    _, inner = generators(log)

    async def failing() -> None:
        raise ValueError("cannot connect")

    async def task(a: Annotated[str, Depends(inner)], b: Annotated[None, Depends(failing)]) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="cannot connect"):
        await worker.run(task)
    assert log[-1] == "close outer"


async def test_what_a_generator_raises_instead_takes_the_place(worker: Worker) -> None:
    class Translated(Exception): ...

    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except ValueError as error:
            raise Translated from error

    async def task(a: Annotated[None, Depends(translating)]) -> None:
        raise ValueError

    with pytest.raises(Translated):
        await worker.run(task)


async def test_a_commit_that_fails_fails_the_attempt(worker: Worker) -> None:
    def session() -> Iterator[None]:
        yield
        raise ConnectionError("commit failed")

    async def task(a: Annotated[None, Depends(session)]) -> None: ...

    with pytest.raises(ConnectionError, match="commit failed"):
        await worker.run(task)


async def swallowing_async() -> AsyncIterator[None]:
    with suppress(Exception):
        yield


def swallowing_sync() -> Iterator[None]:
    with suppress(Exception):
        yield


@pytest.mark.parametrize("swallowing", [swallowing_async, swallowing_sync])
async def test_a_swallowed_exception_fails_the_attempt_as_in_fastapi(
    app: FastAPI, worker: Worker, swallowing: Callable[..., Any]
) -> None:
    log: list[str] = []
    outer, _ = generators(log)

    async def task(a: Annotated[str, Depends(outer)], b: Annotated[None, Depends(swallowing)]) -> None:
        raise ValueError("no")

    assert (await over_http(app, task)).status_code == 500
    in_fastapi = log.copy()
    log.clear()
    with pytest.raises(
        SwallowedException, match=rf"task task -> {swallowing.__name__} caught ValueError\(no\)"
    ) as info:
        await worker.run(task)
    assert isinstance(info.value.__cause__, ValueError)
    assert log == in_fastapi == ["open outer", "commit outer", "close outer"]


async def test_a_generator_without_yield_or_with_two_is_an_error(worker: Worker) -> None:
    async def none() -> AsyncIterator[int]:
        if False:
            yield 1

    async def two() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def first(n: Annotated[int, Depends(none)]) -> None: ...
    async def second(n: Annotated[int, Depends(two)]) -> None: ...

    with pytest.raises(RuntimeError, match="didn't yield"):
        await worker.run(first)
    with pytest.raises(RuntimeError, match="didn't stop"):
        await worker.run(second)


# Cancellation


@asynccontextmanager
async def cancelled_after(seconds: float) -> AsyncIterator[None]:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


async def test_a_cancelled_task_can_still_roll_back(worker: Worker) -> None:
    log = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            await anyio.sleep(0.001)
            log.append("async")
            raise

    def locked() -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            log.append("sync")
            raise

    async def task(a: Annotated[None, Depends(session)], b: Annotated[None, Depends(locked)]) -> None:
        await anyio.sleep_forever()

    async with cancelled_after(0.01):
        await worker.run(task)
    assert log == ["sync", "async"]


async def test_a_dependency_may_hold_a_task_group_through_a_cancellation(worker: Worker) -> None:
    log = []

    async def group() -> AsyncIterator[Any]:
        try:
            async with anyio.create_task_group() as group:
                yield group
        finally:
            await anyio.sleep(0.001)
            log.append("closed")

    async def task(group: Annotated[Any, Depends(group)]) -> None:
        group.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()

    async with cancelled_after(0.01):
        await worker.run(task)
    assert log == ["closed"]


async def test_a_swallowed_cancellation_goes_on(worker: Worker) -> None:
    async def greedy() -> AsyncIterator[None]:
        with suppress(BaseException):
            yield

    async def task(a: Annotated[None, Depends(greedy)]) -> None:
        await anyio.sleep_forever()

    async with cancelled_after(0.01):
        await worker.run(task)


async def test_a_thread_keeps_its_place_through_a_cancellation(worker: Worker) -> None:
    """Else a stuck database would get one thread more with every attempt that runs out of time."""
    release = threading.Event()

    def stuck() -> None:
        release.wait(5)

    async def task(a: Annotated[None, Depends(stuck)]) -> None: ...

    attempt = asyncio.create_task(worker.run(task))
    await anyio.sleep(0.01)
    attempt.cancel()
    await anyio.sleep(0.01)
    assert worker.limiter.borrowed_tokens == 1
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert worker.limiter.borrowed_tokens == 0


async def test_a_generator_that_opened_too_late_is_closed(worker: Worker) -> None:
    log = []
    release = threading.Event()

    def connected() -> Iterator[None]:
        release.wait(5)
        log.append("open")
        try:
            yield
        except asyncio.CancelledError:
            log.append("rollback")
            raise
        finally:
            log.append("close")

    async def task(a: Annotated[None, Depends(connected)]) -> None:
        raise AssertionError

    attempt = asyncio.create_task(worker.run(task))
    await anyio.sleep(0.01)
    attempt.cancel()
    await anyio.sleep(0.01)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert log == ["open", "rollback", "close"]


async def test_a_second_cancellation_leaves_the_thread_alone(worker: Worker) -> None:
    release = threading.Event()

    def stuck() -> Iterator[None]:
        release.wait(5)
        yield

    async def task(a: Annotated[None, Depends(stuck)]) -> None: ...

    attempt = asyncio.create_task(worker.run(task))
    for _ in range(2):
        await anyio.sleep(0.01)
        attempt.cancel()
    try:
        with anyio.fail_after(5), pytest.raises(asyncio.CancelledError):
            await attempt
    finally:
        release.set()


async def test_an_attempt_that_waits_for_a_thread_can_be_cancelled(app: FastAPI) -> None:
    worker = Worker(app, threads=1)
    release = threading.Event()
    calls = []

    def stuck() -> None:
        calls.append(1)
        release.wait(5)

    async def task(a: Annotated[None, Depends(stuck)]) -> None: ...

    first = asyncio.create_task(worker.run(task))
    await anyio.sleep(0.01)
    async with cancelled_after(0.01):
        await worker.run(task)
    release.set()
    await first
    assert calls == [1]


# The request that is none


async def test_a_dependency_may_take_the_request_for_app_and_state(app: FastAPI) -> None:
    app.state.pool = "a pool"

    async def pool(request: Request) -> Any:
        assert request["app"] is request.app
        return request.app.state.pool

    async def client(connection: HTTPConnection) -> Any:
        return connection.state.client

    async def task(pool: Annotated[Any, Depends(pool)], client: Annotated[Any, Depends(client)]) -> Any:
        return pool, client

    worker = Worker(app, state={"client": "a client"})
    assert await worker.run(task) == ("a pool", "a client")


async def test_the_request_is_an_instance_of_what_was_asked_for(worker: Worker) -> None:
    async def request(request: Request, connection: HTTPConnection) -> Any:
        return request, connection

    async def task(requests: Annotated[Any, Depends(request)]) -> Any:
        return requests

    request, connection = await worker.run(task)
    assert isinstance(request, fastapi.Request)
    assert isinstance(connection, HTTPConnection)


async def test_the_state_is_one_for_an_attempt_and_new_for_the_next(app: FastAPI) -> None:
    lifespan = {"client": "a client"}

    async def first(request: Request) -> State:
        assert not hasattr(request.state, "user")
        request.state.user = "ann"
        request.state.client = "another"
        return request.state

    async def second(first: Annotated[State, Depends(first)], request: Request) -> State:
        assert request.state is first
        assert request.scope["state"]["user"] == "ann"
        return request.state

    async def task(state: Annotated[State, Depends(second)]) -> State:
        return state

    worker = Worker(app, state=lifespan)
    assert await worker.run(task) is not await worker.run(task)
    assert lifespan == {"client": "a client"}


HTTP_ATTRIBUTES = [
    "headers",
    "query_params",
    "path_params",
    "cookies",
    "client",
    "url",
    "base_url",
    "method",
    "body",
    "json",
    "form",
    "stream",
    "session",
    "user",
    "auth",
    "receive",
    "url_for",
    "is_disconnected",
    "close",
    "send_push_promise",
]


@pytest.mark.parametrize("attribute", HTTP_ATTRIBUTES)
async def test_what_belongs_to_http_raises_and_names_the_dependency(worker: Worker, attribute: str) -> None:
    async def get_locale(request: Request) -> Any:
        return getattr(request, attribute)

    async def get_texts(locale: Annotated[Any, Depends(get_locale)]) -> Any:
        return locale

    async def send_mail(texts: Annotated[Any, Depends(get_texts)]) -> None: ...

    with pytest.raises(RuntimeError) as info:
        await worker.run(send_mail)
    assert isinstance(info.value, NoHttpRequest)
    assert isinstance(info.value, AfterwardsError)
    assert str(info.value) == (
        f"task send_mail -> get_texts -> get_locale read request.{attribute}, and a task runs without an HTTP request. "
        "Of `Request`, .app and .state work here: read anything else in the endpoint, and pass it to the task as an "
        "argument"
    )
    assert info.value.attribute == f"request.{attribute}"


@pytest.mark.parametrize(
    "read",
    [
        lambda request: request["headers"],
        lambda request: request.get("headers"),
        lambda request: request.scope["headers"],
        lambda request: request.scope.get("headers"),
    ],
)
async def test_the_scope_holds_nothing_of_http_either(worker: Worker, read: Callable[[Request], Any]) -> None:
    async def dependency(request: Request) -> Any:
        return read(request)

    async def task(value: Annotated[Any, Depends(dependency)]) -> None: ...

    with pytest.raises(NoHttpRequest, match=r'^task task -> dependency read request\["headers"\], and'):
        await worker.run(task)


async def test_a_dependency_may_ask_whether_there_is_a_request(worker: Worker) -> None:
    async def dependency(request: Request) -> Any:
        return "user" in request, "user" in request.scope, "app" in request, hasattr(request, "nothing")

    async def task(value: Annotated[Any, Depends(dependency)]) -> Any:
        return value

    assert await worker.run(task) == (False, False, True, False)


# Annotations


async def text_dependency(n: "Annotated[int, Depends(number)]") -> "int":
    return n


class TextService:
    def __init__(self, n: "Annotated[int, Depends(number)]", request: "Request") -> None:
        self.n = n

    def __call__(self, n: "Annotated[int, Depends(text_dependency)]") -> "int":
        return n


async def text_task(
    number_: "Annotated[int, Depends(text_dependency)]",
    service: "Annotated[TextService, Depends()]",
    other: "TextService" = Depends(),
) -> "Missing":  # type: ignore[name-defined]  # noqa: F821
    return number_, service.n, other.n


async def test_annotations_may_be_strings(worker: Worker) -> None:
    assert await worker.run(text_task) == (7, 7, 7)


@dataclass
class TextData:
    n: "Annotated[int, Depends(number)]"


class TextModel(BaseModel):
    n: "Annotated[int, Depends(number)]"


def wrapped_text(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def wrapper(**kwargs: Any) -> Any:
        return await function(**kwargs)

    return wrapper


async def test_strings_are_read_where_they_were_written(worker: Worker) -> None:
    class Child(TextService): ...

    async def task(
        data: Annotated[TextData, Depends()],
        model: Annotated[TextModel, Depends()],
        child: Annotated[Child, Depends()],
        called: Annotated[int, Depends(TextService(1, None))],
        wrapped: Annotated[int, Depends(wrapped_text(text_dependency))],
        bound: Annotated[int, Depends(partial(text_dependency))],
    ) -> Any:
        return data.n, model.n, child.n, called, wrapped, bound

    assert await worker.run(task) == (7,) * 6


async def test_an_inherited_init_is_read_where_it_was_written(worker: Worker) -> None:
    elsewhere: dict[str, Any] = {"__name__": "elsewhere", "Annotated": Annotated, "Depends": Depends, "give": number}
    exec("class Base:\n def __init__(self, n: 'Annotated[int, Depends(give)]') -> None: self.n = n", elsewhere)

    class Child(elsewhere["Base"]): ...  # type: ignore[misc, valid-type, name-defined]

    async def task(child: Annotated[Any, Depends(Child)]) -> Any:
        return child.n

    assert await worker.run(task) == 7


async def test_a_type_that_exists_only_for_the_type_checker_may_be_depended_on(worker: Worker) -> None:
    async def task(
        a: Annotated["Missing", Depends(number)],  # type: ignore[name-defined]  # noqa: F821
        b: "Missing" = Depends(number),  # type: ignore[name-defined]  # noqa: F821
    ) -> Any:
        return a, b

    assert await worker.run(task) == (7, 7)


Number = TypeAliasType("Number", Annotated[int, Depends(number)])


async def test_type_aliases_are_looked_into(worker: Worker) -> None:
    async def task(a: Number, b: "Number") -> Any:
        return a, b

    assert await worker.run(task) == (7, 7)


async def test_an_annotation_that_cannot_be_evaluated_names_function_and_parameter() -> None:
    async def get_user(session: "Annotated[Missing, Depends(number)]") -> None: ...  # type: ignore[name-defined]  # noqa: F821
    async def send_mail(user: Annotated[None, Depends(get_user)]) -> None: ...
    async def other(session: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    message = (
        r"^task send_mail -> get_user -> parameter session has the annotation "
        r"'Annotated\[Missing, Depends\(number\)\]', which cannot be evaluated "
        r"\(NameError: name 'Missing' is not defined\)"
    )
    with pytest.raises(UnresolvedAnnotation, match=message):
        plan(send_mail, name="send_mail")
    with pytest.raises(NameError, match=r"^task other -> parameter session has the annotation 'Missing'"):
        plan(other, name="other")


# Refused at registration


class Item(BaseModel):
    name: str


def refusal(function: Callable[..., Any]) -> str:
    with pytest.raises(InvalidDependency) as info:
        plan(function, name="send_mail")
    assert isinstance(info.value, AfterwardsError)
    assert isinstance(info.value, TypeError)
    return str(info.value)


async def test_a_refusal_says_how_the_parameter_was_reached_and_what_to_do() -> None:
    async def get_user(x_token: Annotated[str, Header()]) -> str:
        return x_token

    async def get_account(user: Annotated[str, Depends(get_user)]) -> str:
        return user

    async def send_mail(account: Annotated[str, Depends(get_account)]) -> None: ...

    assert refusal(send_mail) == (
        "task send_mail -> get_account -> get_user -> parameter x_token is read from an HTTP header, and a task runs "
        "without an HTTP request: read it in the endpoint, and pass what the task needs as an argument"
    )


@pytest.mark.parametrize(
    ("parameter", "source"),
    [
        (Annotated[str, Header()], "an HTTP header"),
        (Annotated[str, Cookie()], "a cookie"),
        (Annotated[str, Query()], "the query string"),
        (Annotated[int, Path()], "the path"),
        (Annotated[Item, Body()], "the request body"),
        (Annotated[str, Form()], "a form"),
        (Annotated[bytes, File()], "an uploaded file"),
        (UploadFile, "an uploaded file"),
        (Item, "the request body"),
        (Item | None, "the request body"),
        (list[str], "the request body"),
        (TextData, "the request body"),
        (dict[str, int], "the request body"),
        (str, "the query string or the path"),
        (int | None, "the query string or the path"),
        (Request | None, "the query string or the path"),
        (inspect.Parameter.empty, "the query string or the path"),
    ],
)
async def test_a_parameter_that_http_would_fill_is_refused(parameter: Any, source: str) -> None:
    async def get_user(value) -> None: ...  # type: ignore[no-untyped-def]
    async def send_mail(user: Annotated[None, Depends(get_user)]) -> None: ...

    if parameter is not inspect.Parameter.empty:
        get_user.__annotations__["value"] = parameter
    assert refusal(send_mail).startswith(
        f"task send_mail -> get_user -> parameter value is read from {source}, and a task"
    )


@pytest.mark.parametrize("default", [Header(None), Query(1), Body(None), Field(1), Cookie()])
async def test_a_default_that_describes_http_is_no_plain_default(default: Any) -> None:
    async def get_user(value: Any = default) -> None: ...
    async def send_mail(user: Annotated[None, Depends(get_user)]) -> None: ...

    assert "parameter value is read from" in refusal(send_mail)


async def test_a_default_beside_an_http_annotation_is_no_plain_default() -> None:
    async def get_page(page: Annotated[int, Query(ge=1)] = 1) -> None: ...
    async def send_mail(user: Annotated[None, Depends(get_page)]) -> None: ...

    assert "parameter page is read from the query string" in refusal(send_mail)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (WebSocket, "is a WebSocket"),
        (Response, "is a Response"),
        (fastapi.responses.JSONResponse, "is a JSONResponse"),
        (fastapi.BackgroundTasks, "is a BackgroundTasks"),
        (starlette.background.BackgroundTasks, "is a BackgroundTasks"),
        (SecurityScopes, "is a SecurityScopes"),
        (BackgroundTasks, "is a BackgroundTasks"),
    ],
)
async def test_parts_of_a_request_and_its_response_are_refused_everywhere(annotation: Any, words: str) -> None:
    async def get_user(value: annotation = None) -> None: ...
    async def send_mail(user: Annotated[None, Depends(get_user)]) -> None: ...
    async def send(value: annotation) -> None: ...

    assert refusal(send_mail).startswith(f"task send_mail -> get_user -> parameter value {words}, and a task runs")
    assert refusal(send).startswith(f"task send_mail -> parameter value {words}, and a task runs")


@pytest.mark.parametrize("annotation", [Request, HTTPConnection, Annotated[Request, "mine"]])
async def test_a_task_function_cannot_take_the_request_itself(annotation: Any) -> None:
    async def send_mail(email: str, request: annotation) -> None: ...

    message = refusal(send_mail)
    assert message.startswith("task send_mail -> parameter request is a ")
    assert message.endswith("use a dependency that takes `Request` and reads .app or .state")


async def test_background_tasks_are_refused_with_enqueue_as_the_fix() -> None:
    async def send_mail(background_tasks: fastapi.BackgroundTasks) -> None: ...

    assert refusal(send_mail).endswith("to add another task, `await other_task.enqueue(...)`")


async def test_arguments_of_a_task_are_its_own_affair() -> None:
    async def send_mail(a: str, b: Item, c: list[int], *args: int, d: Any = 1, **kwargs: str) -> None: ...

    assert plan(send_mail, name="send_mail").parameters == ()


@pytest.mark.parametrize("scheme", [OAuth2PasswordBearer("token"), HTTPBearer(auto_error=False)])
async def test_security_schemes_are_refused(scheme: Any) -> None:
    async def get_user(token: Annotated[Any, Depends(scheme)]) -> None: ...
    async def send_mail(user: Annotated[None, Depends(get_user)]) -> None: ...

    name = type(scheme).__name__
    assert refusal(send_mail).startswith(
        f"task send_mail -> get_user -> {name} reads the credentials of a request, and"
    )


async def test_a_decorator_that_hides_the_parameters_is_refused() -> None:
    def careless(*args: Any, **kwargs: Any) -> Any: ...

    async def send_mail(user: Annotated[None, Depends(careless)]) -> None: ...

    message = refusal(send_mail)
    assert message.startswith("task send_mail -> careless -> parameter args accepts any arguments")
    assert "functools.wraps" in message


async def test_depends_without_argument_and_type_is_refused() -> None:
    async def send_mail(user=Depends()) -> None: ...  # type: ignore[no-untyped-def]
    async def send(user: Any = Depends()) -> None: ...

    for function in (send_mail, send):
        assert "parameter user has neither a type nor an argument in Depends()" in refusal(function)


async def test_what_cannot_be_called_is_refused() -> None:
    async def send_mail(user: Annotated[None, Depends(5)]) -> None: ...

    assert "parameter user depends on 5, which is not callable" in refusal(send_mail)


async def test_what_cannot_be_hashed_is_refused() -> None:
    @dataclass
    class Checker:
        level: int

        def __call__(self) -> int:
            return self.level

    async def send_mail(user: Annotated[int, Depends(Checker(1))]) -> None: ...

    assert "task send_mail -> " in (message := refusal(send_mail))
    assert "Checker cannot be hashed" in message


async def test_what_has_no_signature_is_refused() -> None:
    async def send_mail(user: Annotated[Any, Depends(dict)]) -> None: ...

    assert "task send_mail -> dict has no readable signature" in refusal(send_mail)


async def test_a_positional_only_parameter_cannot_be_injected() -> None:
    async def send_mail(user: Annotated[int, Depends(number)], /) -> None: ...

    assert "parameter user is positional-only" in refusal(send_mail)
