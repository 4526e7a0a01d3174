"""An application with a dashboard, and tasks in every state."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException

from afterwards import Access, Afterwards, Cancel, TaskHandle, task
from afterwards.engine import Engine
from face.serving import an_engine, finished, serving

LEVELS: dict[str, Any] = {
    "reader": (Access.READ, "rita"),
    "actor": (Access.ACT, "anna"),
    "nobody": Access.NONE,
}

READ = {"authorization": "reader"}
ACT = {"authorization": "actor"}


def admin(authorization: Annotated[str | None, Header()] = None) -> Any:
    """The application's own dependency."""
    if authorization not in LEVELS:
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})
    return LEVELS[authorization]


@task
async def add(one: int, other: int) -> int:
    return one + other


@task(retries=1)
async def break_down(what: str) -> None:
    raise ValueError(f"{what} broke down")


@task
async def give_up() -> None:
    raise Cancel("it was not wanted")


@dataclass(frozen=True)
class House:
    """An application that serves, and its tasks."""

    http: httpx.AsyncClient
    tasks: Afterwards
    app: FastAPI

    async def engine(self) -> Engine:
        return await self.tasks.client.open()

    async def ended(self, handle: TaskHandle[Any]) -> str:
        await finished(handle)
        return handle.id


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a new store: a file, unless a test asks for a server."""
    if getattr(request, "param", "sqlite") == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return an_engine(tmp_path)


@pytest.fixture
async def house(store: str) -> AsyncIterator[House]:
    app = FastAPI()
    tasks = Afterwards(app, store, dashboard="/afterwards", auth=Depends(admin))
    async with serving(app) as http:
        yield House(http, tasks, app)


@pytest.fixture
def http(house: House) -> httpx.AsyncClient:
    """A client that says nothing of itself."""
    return house.http
