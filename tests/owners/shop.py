"""An application whose users follow their own tasks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, SecretStr

from afterwards import Afterwards, BackgroundTasks, TaskRecord, progress, task
from owners.events import Event, events_of

ADA = {"X-User": "ada"}
EVE = {"X-User": "eve"}
SECRET = "hunter2hunter2"
NOBODY = "01a1fbf1-78b4-7adc-9dcc-e1e534311e06"
STEPS = 3


class Report(BaseModel):
    title: str
    pages: int


class Gates:
    """Lets running tasks go on, step by step."""

    def __init__(self) -> None:
        self.open = asyncio.Semaphore(0)


gates: dict[str, Gates] = {}


def gate(user: str) -> Gates:
    return gates.setdefault(user, Gates())


@task
async def make_report(user: str, password: str) -> Report:
    with progress(total=STEPS, desc=f"with {password}", unit="pages") as bar:
        for _ in range(STEPS):
            await gate(user).open.acquire()
            bar.update(1)
    return Report(title=f"of {user}", pages=STEPS)


@task
async def be_refused(user: str, password: str) -> None:
    raise ValueError(f"the database db.internal refused {password}")


@task
async def count(user: str, password: str) -> int:
    return 3


@task
async def make_key(user: str, password: str) -> SecretStr:
    return SecretStr("canary-of-ada")


class Account(BaseModel):
    name: str
    key: SecretStr


@task
async def make_account(user: str, password: str) -> Account:
    return Account(name=user, key=SecretStr("canary-of-ada"))


@task
async def make_link(user: str, password: str) -> str:
    return "https://files/report?X-Security-Token=1234567"


@task
async def do_nothing(user: str, password: str) -> None:
    pass


def current_user(x_user: Annotated[str | None, Header()] = None) -> str:
    if x_user is None:
        raise HTTPException(401)
    return x_user


User = Annotated[str, Depends(current_user)]


def owns(task: TaskRecord, user: User) -> bool:
    return bool(task.arguments["user"] == user)


FUNCTIONS = {
    function.name: function
    for function in (make_report, be_refused, count, make_key, make_account, make_link, do_nothing)
}


def a_shop(url: str, **options: Any) -> tuple[FastAPI, Afterwards]:
    """An application without routers."""
    app = FastAPI()
    tasks = Afterwards(app, url, **options)

    @app.post("/add/{name}", status_code=202)
    async def add(name: str, user: User, background_tasks: BackgroundTasks, delay: float = 0) -> Any:
        return background_tasks.accepted(background_tasks.add_task(FUNCTIONS[name].options(delay=delay), user, SECRET))

    return app, tasks


async def added(http: httpx.AsyncClient, name: str, user: dict[str, str] = ADA, **params: Any) -> str:
    """The id of a task that a user has added."""
    answer = await http.post(f"/add/{name}", headers=user, params=params)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@asynccontextmanager
async def following(
    http: httpx.AsyncClient, id: str, user: dict[str, str] = ADA, **headers: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a task."""
    async with http.stream("GET", f"/tasks/{id}/events", headers=user | headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events_of(answer)


def statuses(events: list[Event]) -> Iterator[tuple[str, str]]:
    for event in events:
        if event.name:
            yield event.name, event.json["state"]
