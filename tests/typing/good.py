"""What type checkers must accept, and the types that they must see. Checked by `make check` and by the tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, assert_type

import fastapi
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session
from starlette.background import BackgroundTask

from afterwards import (
    Afterwards,
    BackgroundTasks,
    Call,
    FailedTask,
    Progress,
    Retry,
    ScheduleRecord,
    Secret,
    State,
    TaskContext,
    TaskFunction,
    TaskHandle,
    TaskPage,
    TaskRecord,
    TaskStats,
    chain,
    injected,
    progress,
    task,
)
from afterwards.testing import (
    Crash,
    allow_retries,
    assert_enqueued,
    assert_not_enqueued,
    clock,
    crash_at,
    drain,
    drain_async,
    fire_schedules,
    fire_schedules_async,
    run_twice,
)
from afterwards.testing.clock import FakeClock

app = FastAPI()
tasks = Afterwards(app, "sqlite:///tasks.db", concurrency=5, grace=timedelta(seconds=5), queues=["mail"])


assert_type(tasks.health_router(), APIRouter)
app.include_router(tasks.health_router(), prefix="/ops", dependencies=[Depends(lambda: None)])


class Invoice(BaseModel):
    number: int


async def session() -> AsyncIterator[str]:
    yield "session"


@task
async def bare(email: str) -> None: ...


@task(retries=Retry(3, wait=1, on=OSError), timeout=60, queue="mail", priority=5)
async def with_options(email: str, *, copies: int = 1) -> int:
    return copies


@task
def in_a_thread(number: int) -> Invoice:
    return Invoice(number=number)


@task
async def with_a_dependency(number: int, session: Annotated[str, Depends(session)] = "") -> str:
    return session


@task
def as_a_default(number: int, session: str = Depends(session)) -> str:
    return session


SessionDep = Annotated[str, Depends(session)]


@task
async def with_an_alias(number: int, session: SessionDep = injected(), ctx: TaskContext = injected()) -> str:
    return session


async def told(failed: FailedTask) -> None: ...


@task
async def told_durably(failed: FailedTask) -> None: ...


@task(on_failure=told)
async def watched() -> None: ...


@task(on_failure=told_durably, name="watched.durably")
def watched_durably() -> None: ...


def plain(text: str, *, times: int = 1) -> None: ...


async def plain_async(text: str) -> int:
    return 5


class Mine(BackgroundTasks):
    def add_mail(self, email: str) -> TaskHandle[None]:
        return self.add_task(bare, email)


@app.post("/")
async def handler(background_tasks: BackgroundTasks, also: Annotated[BackgroundTasks, "documented"]) -> str:
    assert_type(background_tasks.add_task(bare, "a@b.c"), TaskHandle[None])
    assert_type(background_tasks.add_task(with_options, "a@b.c", copies=2), TaskHandle[int])
    assert_type(background_tasks.add_task(with_options.options(delay=60), email="a@b.c"), TaskHandle[int])
    assert_type(background_tasks.add_task(in_a_thread, 5), TaskHandle[Invoice])
    background_tasks.add_task(with_a_dependency, 5)
    background_tasks.add_task(as_a_default, 5)
    assert_type(background_tasks.add_task(with_an_alias, 5), TaskHandle[str])
    assert_type(await with_an_alias.enqueue(5), TaskHandle[str])
    assert_type(await with_an_alias(5, "given by hand"), str)
    background_tasks.add_task(plain, "text", times=2)
    background_tasks.add_task(plain_async, "text")
    background_tasks.add_task(print, "anything", end="")
    background_tasks.configure(ordered=False)
    await background_tasks.flush()
    handle = background_tasks.add_task(in_a_thread, number=5)
    assert_type(handle.id, str)
    assert_type(await handle.status(), TaskRecord)
    assert_type(await handle.result(timeout=5), Invoice)
    assert_type(await handle.cancel("reason"), TaskRecord)
    return handle.id


@task
async def log_in(user: str, key: Annotated[str, Secret()], others: dict[str, SecretStr]) -> None: ...


async def operator(handle: TaskHandle[str]) -> None:
    page = await tasks.list(state="failed", name=bare, queue=["mail"], text="a@b.c", since=timedelta(hours=1), limit=5)
    assert_type(page, TaskPage)
    assert_type(page[0], TaskRecord)
    assert_type(page.next, str | None)
    assert_type(page[0].arguments, dict[str, Any])
    assert_type(page[0].as_json(), dict[str, Any])
    await tasks.list(state=[State.FAILED, "queued"], name=["bare", with_options], before=page.next, queue="mail")
    assert_type(await tasks.stats(), TaskStats)
    assert_type(await tasks.requeue(since=datetime.now(UTC)), int)
    assert_type(await tasks.cancel(name=bare, reason="no"), int)
    assert_type(await tasks.start_now(all=True), int)
    assert_type(await tasks.delete(state={State.FAILED}), int)
    assert_type(await handle.requeue(), TaskRecord)
    assert_type(await handle.start_now(), TaskRecord)
    assert_type(await handle.delete(), None)


@app.post("/signup")
async def sign_up(email: str, background_tasks: BackgroundTasks) -> TaskHandle[None]:
    return background_tasks.add_task(bare, email)


@app.post("/stock")
async def stock_handler(background_tasks: fastapi.BackgroundTasks) -> None:
    background_tasks.add_task(bare, "a@b.c")
    background_tasks.add_task(with_options, "a@b.c", copies=2)
    background_tasks.add_task(with_options.options(delay=60), email="a@b.c")
    background_tasks.add_task(plain, "text", times=2)


def helper(background_tasks: BackgroundTasks | None) -> None:
    if background_tasks:
        assert_type(background_tasks.add_task(bare, "a@b.c"), TaskHandle[None])


@app.get("/{id}")
def sync_handler(id: str, background_tasks: BackgroundTasks) -> str:
    assert_type(with_options.enqueue_sync("a@b.c", copies=2), TaskHandle[int])
    assert_type(in_a_thread(5), Invoice)
    return id


@app.middleware("http")
async def middleware(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    added = BackgroundTasks([BackgroundTask(plain, "text")])
    added.add_task(plain, "text")
    response.background = added
    return response


@app.post("/session")
async def with_a_session(background_tasks: BackgroundTasks, session: AsyncSession) -> None:
    background_tasks.configure(session=session)
    background_tasks.configure(session=session, ordered=False)
    background_tasks.configure(session=None)
    assert_type(background_tasks.add_task(with_options.options(session=session), "a@b.c"), TaskHandle[int])
    assert_type(await with_options.options(session=session, delay=5).enqueue("a@b.c"), TaskHandle[int])


def with_a_sync_session(background_tasks: BackgroundTasks, session: Session, scoped: scoped_session[Session]) -> None:
    background_tasks.configure(session=session)
    background_tasks.configure(session=scoped)
    assert_type(in_a_thread.options(session=session).enqueue_sync(5), TaskHandle[Invoice])
    in_a_thread.options(session=None).enqueue_sync(5)


@task(cron="0 3 * * *", tz="Europe/Rome", missed="all", retries=3)
async def nightly(day: str = "today") -> int:
    return len(day)


@task(every=timedelta(minutes=5))
def often() -> None: ...


async def schedules() -> None:
    assert_type(await tasks.schedules.list(), list[ScheduleRecord])
    assert_type(await tasks.schedules.run_now(nightly), TaskHandle[int])
    assert_type(await tasks.schedules.run_now("nightly"), TaskHandle[Any])
    await tasks.schedules.pause(often)
    await tasks.schedules.resume("often")


@task(
    max_concurrency=2,
    rate_limit="10/m",
    concurrency_key="{user}",
    unique=True,
    idempotency_key=lambda user, **_: f"key-{user}",
    expires=60,
    rerun_after_crash=False,
    aliases=["older"],
)
async def limited(user: str, ctx: TaskContext = Depends()) -> int:
    ctx.check_cancelled()
    async for row in progress([1, 2, 3], desc="rows"):
        assert_type(row, int)
    with progress(total=3) as bar:
        bar.update(1)
    return ctx.attempt


async def flow(background_tasks: BackgroundTasks) -> None:
    first, *_ = await chain(limited.call("ada"), bare.call("a@b.c"))
    assert_type(first, TaskHandle[Any])
    assert_type(limited.call("ada"), Call[int])
    background_tasks.configure(idempotency_key=True)
    background_tasks.configure(idempotency_key="mine")
    later = background_tasks.add_task(limited.options(after=first, unique=False, concurrency_key="x"), "ada")
    assert_type(later, TaskHandle[int])
    assert_type((await later.status()).progress, Progress | None)
    assert_type(await tasks.get(key="mine"), TaskHandle[Any])
    assert_type(await tasks.enqueue_many([limited.call("ada"), limited.call("bob")]), list[TaskHandle[int]])
    assert_type(await tasks.enqueue_many(with_options.call(one) for one in ("a", "b")), list[TaskHandle[int]])
    assert_type(await tasks.enqueue_many([limited.call("ada"), bare.call("a@b.c")]), list[TaskHandle[Any]])
    assert_type(tasks.enqueue_many_sync([limited.options(delay=5).call("ada")]), list[TaskHandle[int]])
    await tasks.pause(limited, bare, queue="mail")
    await tasks.resume(limited)


async def elsewhere() -> None:
    assert_type(await bare("a@b.c"), None)
    assert_type(await with_options("a@b.c"), int)
    assert_type(await with_options.enqueue("a@b.c", copies=2), TaskHandle[int])
    assert_type(await in_a_thread.options(run_at=datetime.now(UTC), retries=3).enqueue(5), TaskHandle[Invoice])
    assert_type(await (await in_a_thread.enqueue(5)).result(), Invoice)
    assert_type(await tasks.get("id"), TaskHandle[Any])


def takes_native(native: fastapi.BackgroundTasks) -> None: ...


def uses_the_class(maybe: object, function: TaskFunction[[str], Any, None]) -> type[fastapi.BackgroundTasks]:
    takes_native(BackgroundTasks())
    takes_native(Mine())
    if isinstance(maybe, BackgroundTasks):
        maybe.add_task(function, "text")
    return BackgroundTasks


def create_app() -> FastAPI:
    made = FastAPI()
    tasks.install(made)
    return made


def test_an_application(afterwards_clock: FakeClock) -> None:
    assert_type(clock(), FakeClock)
    afterwards_clock.advance(timedelta(days=1))
    fire_schedules()
    drain(scheduled=True)
    assert_type(assert_enqueued(with_options, email="a@b.c", delay=60, queue="mail"), TaskRecord)
    assert_not_enqueued(bare, email="a@b.c", run_at=datetime.now(UTC))
    with run_twice(), run_twice(bare, in_a_thread), crash_at(bare, "start"):
        drain()
    with crash_at(in_a_thread, "end", times=2), crash_at(in_a_thread, Crash.END):
        drain()
    with allow_retries():
        drain(scheduled=True)


async def test_an_application_from_within_a_loop() -> None:
    clock().advance(60)
    await fire_schedules_async()
    await drain_async()
