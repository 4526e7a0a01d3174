"""One transaction for a row and its task, with the tasks in the application's own database.

    pip install "sqlalchemy[asyncio]" aiosqlite
    uvicorn transaction:app
    curl -X POST localhost:8000/people/ada
    curl -X POST localhost:8000/people/ada

The second request fails because the name is taken: neither row nor task is stored.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afterwards import Afterwards, BackgroundTasks, task

engine = create_async_engine("sqlite+aiosqlite:///people.db")


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    name: Mapped[str] = mapped_column(primary_key=True)


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
tasks = Afterwards(app, "sqlite:///people.db")  # the same file; in another one, tasks are stored after the commit


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


def write(line: str) -> None:
    with Path("greetings.txt").open("a") as greetings:
        greetings.write(f"{line}\n")


@task
async def greet(name: str, session: Annotated[AsyncSession, Depends(get_session)]) -> None:
    person = await session.get_one(Person, name)  # it exists: the task was committed with it
    write(f"Welcome, {person.name}!")


@app.post("/people/{name}", status_code=201)
async def add_person(
    name: str, background_tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(get_session)]
):
    background_tasks.configure(session=session)
    session.add(Person(name=name))
    background_tasks.add_task(greet, name)
    try:
        await session.commit()
    except IntegrityError:
        raise HTTPException(409, "the name is taken") from None
    return {"name": name}
