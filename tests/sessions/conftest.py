"""Fixtures of the tests that store tasks with sessions: an application's database, and where its tasks are kept."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from afterwards import Afterwards
from face.fixtures import said
from sessions.sessions_support import Database

__all__ = ["said"]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "app.db") as database:
        yield database


@pytest.fixture
def same(database: Database) -> FastAPI:
    """An application whose tasks are kept in its own database."""
    return installed(database.url)


@pytest.fixture
def another(tmp_path: Path) -> FastAPI:
    """An application whose tasks are kept in another file than its data."""
    return installed(f"sqlite:///{tmp_path / 'tasks.db'}")


@pytest.fixture(params=["same", "another"])
def app(request: pytest.FixtureRequest) -> FastAPI:
    """Either of them."""
    app: FastAPI = request.getfixturevalue(request.param)
    return app


def installed(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app
