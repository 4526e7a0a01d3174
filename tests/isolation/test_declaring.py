"""Which functions may run in a process of their own is said where they are decorated."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, UploadFile
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, TaskFunction, task
from afterwards.core.errors import InvalidOption, InvalidTaskFunction
from isolation.functions import loaded_in, pid

seen: list[int] = []


def a_number() -> int:
    return 1


async def a_coroutine() -> None: ...
def with_a_dependency(number: Annotated[int, Depends(a_number)]) -> None: ...
def with_a_file(file: UploadFile) -> None: ...
def with_files(files: list[UploadFile]) -> None: ...


def inside() -> Any:
    def local() -> None: ...

    return local


@task(run_in="process")
def remember(number: int) -> None:
    seen.append(number)


app = FastAPI()
tasks = Afterwards(app, "sqlite:///must-not-appear.db")


@app.post("/{number}")
async def add(number: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(remember, number)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (a_coroutine, "runs on the application's event loop.*write a `def`"),
        (with_a_dependency, "Depends would fill number .*make what it needs inside the function"),
        (with_a_file, r"an uploaded file \(file\).*pass its path"),
        (with_files, r"an uploaded file \(files\).*pass its path"),
        (inside(), "importing its module: define it at module level"),
    ],
)
def test_what_another_process_could_not_call_is_refused(function: Any, reason: str) -> None:
    with pytest.raises(InvalidTaskFunction, match=rf'run_in="process"\) on .*{function.__name__}: .*{reason}'):
        task(run_in="process", name=f"refused_{function.__name__}")(function)
    assert isinstance(task(name=f"taken_{function.__name__}")(function), TaskFunction)


@pytest.mark.parametrize("value", ["fibre", None, 1, "THREAD"])
def test_there_are_threads_and_processes(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r'run_in=.*: give "thread" or "process"'):
        task(run_in=value)


def test_it_belongs_to_the_function_and_not_to_a_call() -> None:
    with pytest.raises(InvalidOption, match="run_in is for a function"):
        remember.options(run_in="process")  # type: ignore[call-arg]


def test_a_direct_call_is_a_plain_call() -> None:
    assert pid() == loaded_in


def test_under_the_pytest_plugin_it_shares_the_memory_of_the_test() -> None:
    seen.clear()
    with TestClient(app) as http:
        http.post("/5")
    assert seen == [5]
