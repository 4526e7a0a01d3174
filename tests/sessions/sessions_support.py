"""An application's database: people, each with a name of their own."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from afterwards import task
from afterwards.core.task import Task
from face.diary import said
from face.serving import records


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    name: Mapped[str] = mapped_column(primary_key=True)


class Database:
    """An SQLite file with both kinds of sessions on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    async def __aenter__(self) -> Self:
        self.engine = sqlalchemy.create_engine(self.url)
        self.async_engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}")
        Base.metadata.create_all(self.engine)
        for engine in (self.engine, self.async_engine.sync_engine):
            _begin_by_hand(engine)
        self._make = async_sessionmaker(self.async_engine, expire_on_commit=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.engine.dispose()
        await self.async_engine.dispose()

    def session(self) -> AsyncSession:
        return self._make()

    def sync_session(self) -> Session:
        return Session(self.engine)

    async def opened(self) -> AsyncIterator[AsyncSession]:
        """A dependency that leaves it to the endpoint to commit."""
        async with self.session() as session:
            yield session

    async def committed(self) -> AsyncIterator[AsyncSession]:
        """A dependency that commits when the endpoint went well."""
        async with self.session() as session:
            yield session
            await session.commit()

    async def committed_always(self) -> AsyncIterator[AsyncSession]:
        """A dependency that commits whatever happened."""
        async with self.session() as session:
            try:
                yield session
            finally:
                await session.commit()

    def people(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM people ORDER BY name")]


def _begin_by_hand(engine: sqlalchemy.Engine) -> None:
    """What SQLAlchemy recommends for savepoints: Python's sqlite3 begins no transaction before the first change."""

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@task
async def greet(name: str) -> None:
    said.append(f"hello {name}")


async def stored(app: FastAPI) -> list[Task]:
    """All tasks of an application, in the order stored."""
    return await records(app.state.tasks)
