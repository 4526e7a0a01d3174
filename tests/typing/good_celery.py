"""Celery tasks as celery-types declares them: what type checkers say of adding them. Without those stubs all is Any."""

from typing import Any, Generic, TypeVar, assert_type

from fastapi import FastAPI
from typing_extensions import ParamSpec

from afterwards import Afterwards, BackgroundTasks, TaskHandle, task
from afterwards.celery import CeleryHandle

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class AsyncResult(Generic[R_co]):
    def get(self, timeout: float | None = ..., propagate: bool = ...) -> R_co: ...  # type: ignore[empty-body]


class CelerysTask(Generic[P, R_co]):
    name: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...  # type: ignore[empty-body]
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R_co]: ...  # type: ignore[empty-body]


app = FastAPI()
tasks = Afterwards(app)


@task
async def ours(number: int) -> str:
    return str(number)


async def handler(background_tasks: BackgroundTasks, resize: CelerysTask[[str, int], bytes], untyped: Any) -> None:
    assert_type(background_tasks.add_task(resize, "cat.png", 80), CeleryHandle[bytes])
    handle = await tasks.enqueue(resize, "cat.png", 80)
    assert_type(handle, CeleryHandle[bytes])
    assert_type(await handle.result(timeout=5), bytes)
    assert_type(await handle.status(), str)
    assert_type(await tasks.enqueue(ours, 5), TaskHandle[str])
    await tasks.enqueue(untyped, "anything", goes=True)
    background_tasks.add_task(untyped, "anything", goes=True)
    background_tasks.add_task(resize, 5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await tasks.enqueue(ours, "5")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
