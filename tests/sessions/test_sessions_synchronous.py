"""Sessions whose connection does not wait for the disk."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.orm import Session

from afterwards import Afterwards
from sessions.sessions_support import greet

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def stored_with(level: str, url: str, tasks_url: str) -> None:
    engine = sqlalchemy.create_engine(url)

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, record: object) -> None:
        connection.execute(f"PRAGMA synchronous = {level}")

    tasks = Afterwards(FastAPI(), tasks_url)
    await tasks.client.open()
    try:
        with Session(engine) as session:
            await greet.options(session=session).enqueue("ada")
            session.commit()
    finally:
        await tasks.client.close()
        engine.dispose()


@pytest.mark.parametrize("level", ["OFF", "NORMAL"])
async def test_a_session_that_may_lose_its_last_commits_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    await stored_with(level, url, url)
    assert caplog.text.count(f"PRAGMA synchronous = {level}") == 1


@pytest.mark.parametrize("level", ["FULL", "EXTRA"])
async def test_a_session_that_waits_for_the_disk_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    await stored_with(level, url, url)
    assert "PRAGMA synchronous" not in caplog.text


async def test_a_session_on_another_file_than_the_tasks_is_its_own_affair(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await stored_with("OFF", f"sqlite:///{tmp_path}/app.db", f"sqlite:///{tmp_path}/tasks.db")
    assert "PRAGMA synchronous" not in caplog.text
