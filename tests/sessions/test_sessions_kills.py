"""A process that is killed while it commits: a row and its task are both there, or neither is."""

import json
import random
import signal
import sqlite3
import threading
from contextlib import closing
from itertools import count
from pathlib import Path

import httpx
import pytest

from face.processes import eventually, uvicorn

APPLICATION = """
import os, signal
import sqlalchemy
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from afterwards import Afterwards, BackgroundTasks, task

@task
async def greet(name: str) -> None: ...

app = FastAPI()
tasks = Afterwards(app, "sqlite:///app.db", worker=False)
engine = create_async_engine("sqlite+aiosqlite:///app.db")

def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@app.post("/people/{name}")
async def add(name: str, background_tasks: BackgroundTasks, killed: str = "") -> None:
    async with AsyncSession(engine) as session:
        background_tasks.configure(session=session)
        await session.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS people (name TEXT)"))
        await session.execute(sqlalchemy.text("INSERT INTO people VALUES (:name)"), {"name": name})
        background_tasks.add_task(greet, name)
        if killed == "before the commit":
            event.listen(session.sync_session, "before_commit", die)  # after ours
        await session.commit()
    if killed == "after the commit":
        die()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APPLICATION)
    return tmp_path


def people(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        return sorted(name for (name,) in connection.execute("SELECT name FROM people"))


def greeted(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        found = connection.execute("SELECT arguments FROM afterwards_tasks").fetchall()
        return sorted(json.loads(arguments)["name"] for (arguments,) in found)


@pytest.mark.parametrize(("killed", "expected"), [("before the commit", ["ada"]), ("after the commit", ["ada", "bob"])])
def test_killed_at_the_commit(folder: Path, killed: str, expected: list[str]) -> None:
    with uvicorn(folder) as server:
        server.post("/people/ada")
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}/people/bob", params={"killed": killed})
        server.ends()
    assert people(folder) == greeted(folder) == expected
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        held = "SELECT state, (run_at - created_at) / 1000000 FROM afterwards_tasks ORDER BY seq DESC LIMIT 1"
        assert connection.execute(held).fetchone() == (("queued", None) if expected == ["ada"] else ("scheduled", 60))


def test_killed_at_any_instant_under_load(folder: Path) -> None:
    numbers = count()

    def load(url: str) -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while client.post(f"/people/{next(numbers)}").status_code == 200:
                pass

    def load_until_it_dies(url: str) -> None:
        with pytest.raises(httpx.TransportError):
            load(url)

    for _ in range(4):
        with uvicorn(folder) as server:
            server.post(f"/people/{next(numbers)}")
            before = len(people(folder))
            clients = [threading.Thread(target=load_until_it_dies, args=[server.url]) for _ in range(2)]
            for client in clients:
                client.start()
            enough = before + random.randint(1, 60)
            eventually(lambda enough=enough: len(people(folder)) >= enough)
            server.signal(signal.SIGKILL)
            server.ends()
            for client in clients:
                client.join()
        assert people(folder) == greeted(folder) != []
