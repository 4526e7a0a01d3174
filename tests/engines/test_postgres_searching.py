"""Searches in a PostgreSQL database, and log lines that this version cannot read."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from postgres_calls import claim, end, new

from afterwards.core.task import LogLine, State
from afterwards.engine import Query
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.operations import searching

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_plans")]

LINE = LogLine(attempt=1, at=datetime(2026, 1, 1, tzinfo=UTC), level="INFO", logger="shop", message="a line")


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[PostgresEngine]:
    async with PostgresEngine(postgres_url) as engine:
        yield engine


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 100])
async def test_a_text_is_sought_in_pieces(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(searching, "MOST_SEARCHED", most)
    tasks = [new(name="thank" if number % 2 else "greet") for number in range(8)]
    await engine.enqueue(tasks)
    await engine.claim(claim(1))
    newest = [task.id for task in reversed(tasks) if task.name == "greet"]
    assert [task.id for task in await engine.find(Query(text="GREET"))] == newest
    assert [task.id for task in await engine.find(Query(text="greet", limit=3))] == newest[:3]
    assert [task.id for task in await engine.find(Query(text="greet", before=newest[1]))] == newest[2:]
    assert await engine.count(Query(text="greet")) == 4
    assert await engine.count(Query(text="greet", limit=3)) == 3
    assert await engine.count(Query(text="greet", states=frozenset(State) - {State.RUNNING})) == 3


@pytest.mark.parametrize("text", ["\ud83d", "a\0"])
async def test_a_text_that_no_database_can_hold_is_in_no_task(engine: PostgresEngine, text: str) -> None:
    await engine.enqueue([new(arguments='{"a":"a"}')])
    assert await engine.find(Query(text=text)) == []
    assert await engine.count(Query(text=text)) == 0


@pytest.mark.parametrize(
    "lines", ["[", "3", "[[1]]", '[["yesterday","INFO","shop","a line"]]', f'[[{2**60},"","",""]]']
)
async def test_log_lines_that_cannot_be_read_are_described(
    engine: PostgresEngine, postgres_url: str, lines: str
) -> None:
    await engine.enqueue([new()])
    [task] = await engine.claim(claim())
    await engine.finish([replace(end(task), logs=(LINE,))])
    assert (await engine.get([task.id]))[0].logs == (LINE,)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE afterwards_logs SET lines = %s", (lines,))
    [read] = await engine.get([task.id])
    assert read.unreadable is None
    assert [line.message for line in read.logs] == ["this version cannot read the lines that this attempt logged"]
