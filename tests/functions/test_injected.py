"""``injected()``: type checkers know by it that a dependency fills a parameter."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, InvalidDependency, NotInjected, TaskContext, injected, task
from afterwards.testing import assert_enqueued

said: list[object] = []


def get_db() -> str:
    return "database"


Db = Annotated[str, Depends(get_db)]


def get_repository(db: Db = injected()) -> str:
    return f"repository in {db}"


Repository = Annotated[str, Depends(get_repository)]


@task
async def keep(number: int, db: Db = injected(), *, repository: Repository = injected()) -> str:
    said.append((number, db, repository))
    return db


@task
def keep_in_thread(number: int, ctx: TaskContext = injected(), db: "Db" = injected()) -> None:
    said.append((number, ctx.attempt, db))


app = FastAPI()
Afterwards(app)


@app.post("/")
def add(background_tasks: BackgroundTasks, repository: Repository) -> str:
    background_tasks.add_task(keep, 5)
    background_tasks.add_task(keep_in_thread, 6)
    return repository


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    said.clear()


def test_callers_leave_it_out_and_the_dependency_fills_it() -> None:
    with TestClient(app) as http:  # with its lifespan: an installation that stays open would answer for other tests'
        assert http.post("/").json() == "repository in database"
        assert said == [(5, "database", "repository in database"), (6, 1, "database")]
        assert assert_enqueued(keep, number=5).arguments == {"number": 5}


def test_a_direct_call_with_the_value_is_a_plain_call() -> None:
    assert asyncio.run(keep(5, "mine", repository="mine too")) == "mine"


@pytest.mark.parametrize("given", [(5,), (5, "mine")])
def test_a_direct_call_without_it_says_what_is_missing(given: tuple[Any, ...]) -> None:
    with pytest.raises(NotInjected, match=r'keep\(\) was called without "(db|repository)".*pass the value yourself'):
        asyncio.run(keep(*given))
    with pytest.raises(NotInjected, match='without "ctx"'):
        keep_in_thread(5)


def test_a_direct_call_that_does_not_fit_is_a_type_error_as_ever() -> None:
    with pytest.raises(TypeError, match="number"):
        keep_in_thread()  # type: ignore[call-arg]


def test_what_nobody_fills_is_refused_where_it_is_declared() -> None:
    with pytest.raises(InvalidDependency, match=r"parameter db has the default injected\(\).*Annotated"):

        @task
        def wrong(db: str = injected()) -> None: ...


def test_so_is_what_nobody_fills_in_a_dependency() -> None:
    def get_other(db: str = injected()) -> str:
        return db

    with pytest.raises(InvalidDependency, match=r"get_other -> parameter db has the default injected\(\)"):

        @task
        def wrong(other: Annotated[str, Depends(get_other)]) -> None: ...


def test_a_function_of_another_kind_that_uses_it_says_what_is_wrong() -> None:
    def plain(db: Any = injected()) -> Any:
        return db.execute("SELECT 1")

    with pytest.raises(NotInjected, match="'execute' was read from a parameter"):
        plain()
    with pytest.raises(NotInjected, match="was called"):
        injected()("SELECT 1")
    assert repr(injected()) == "injected()"
    assert not hasattr(injected(), "__wrapped__")
