"""The arguments that functions are added with."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel

from differential.diary import record
from differential.kit import Kit
from differential.scene import post, situation
from differential.tasks import note


def parcel(kind: str, /, weight: float = 1.5, *, urgent: bool = False, note: str | None = None) -> None:
    record(f"parcel {kind} {weight} {urgent} {note}")


@situation(post("/"))
def positional_keyword_and_default_arguments(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(parcel)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "letter")
        background_tasks.add_task(task, "box", 2.5)
        background_tasks.add_task(task, "box", weight=3.0, urgent=True)
        background_tasks.add_task(task, "crate", note="this side up", urgent=True)
        return {"message": "accepted"}

    return app


async def gathered(first: int, *others: int, **named: str) -> None:
    record(f"gathered {first} {others!r} {sorted(named.items())}")


@situation(post("/"))
def variable_arguments(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(gathered)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, 1)
        background_tasks.add_task(task, 1, 2, 3, colour="red", size="big")
        return {"message": "accepted"}

    return app


def settings(
    delay: int, priority: int, queue: str, name: str, retries: int, timeout: float, task: str, args: list[int]
) -> None:
    record(f"settings {delay} {priority} {queue} {name} {retries} {timeout} {task} {args}")


@situation(post("/"))
def keywords_that_look_like_settings(kit: Kit) -> FastAPI:
    """`add_task` hands every keyword to the function."""
    app = kit.app()
    settings_task = kit.task(settings)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(
            settings_task, delay=1, priority=2, queue="q", name="n", retries=3, timeout=0.5, task="t", args=[1, 2]
        )
        return {"message": "accepted"}

    return app


@situation(post("/"))
def function_given_by_keyword(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(func=task, text="by keyword")
        return {"message": "accepted"}

    return app


class Colour(Enum):
    RED = "red"


class Address(BaseModel):
    street: str
    since: date


@dataclass
class Point:
    x: int
    y: float


async def typed(
    at: datetime,
    id: UUID,
    price: Decimal,
    colour: Colour,
    address: Address,
    point: Point,
    data: bytes,
    span: timedelta,
    path: PurePosixPath,
    numbers: set[int],
    pair: tuple[int, str],
    table: dict[str, list[float]],
    nothing: None = None,
) -> None:
    record(
        f"typed {at.isoformat()} {id!r} {price!r} {colour!r} {address!r} {point!r} {data!r} {span!r} {path!r}"
        f" {numbers!r} {pair!r} {table!r} {nothing!r}"
    )


@situation(post("/", json={"street": "Elm Street", "since": "2020-02-03"}))
def typed_arguments(kit: Kit) -> FastAPI:
    """The function receives values equal to those added, of the same types."""
    app = kit.app()
    task = kit.task(typed)

    @app.post("/")
    async def handler(address: Address, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(
            task,
            datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
            UUID(int=7),
            Decimal("19.90"),
            Colour.RED,
            address,
            Point(1, 2.5),
            b"\x00\xff",
            timedelta(days=1, milliseconds=5),
            PurePosixPath("a/b.txt"),
            numbers={3},
            pair=(1, "one"),
            table={"row": [1.0, 2.5]},
        )
        return {"message": "accepted"}

    return app


@situation(post("/"))
def missing_argument(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task)
        return {"message": "accepted"}

    return app


def counted(pieces: int) -> None:
    record(f"counted {pieces!r}")


@situation(post("/"))
def argument_of_another_type(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(counted)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "many")
        return {"message": "accepted"}

    return app
