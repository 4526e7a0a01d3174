"""What cannot outlive a request is refused at `add_task`, naming the parameter and what to do: the real things."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, sessionmaker
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from afterwards.core.errors import UnstorableArgument, UnusableAnnotation
from afterwards.core.serialization.arguments import Codec


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Note(MappedAsDataclass, Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


def numbers() -> Iterator[int]:
    yield 1


async def pages() -> AsyncIterator[int]:
    yield 1


SCOPE = {"type": "http", "headers": [], "method": "GET", "path": "/"}
BY_ID = "pass its id and load it in the task"
OWN = "it is connected to this process, let the task open its own, as a dependency"
OVER = "a request is over when the task runs, pass the values that the task needs"
CLOSED = "an open file is closed when the task runs, pass its path, or its content as bytes"
ONCE = "it can be read only once, pass a list of what it gives"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[dict[str, Any]]:
    file = tmp_path / "file"
    file.write_bytes(b"a")
    engine = create_engine("sqlite://")
    with ExitStack() as stack:
        yield {
            "an ORM instance": User(id=1, name="Ada"),
            "an ORM instance that is a dataclass": Note(id=1, text="a"),
            "a session": stack.enter_context(Session(engine)),
            "a session of a sessionmaker": stack.enter_context(sessionmaker(engine)()),
            "an async session": AsyncSession(),
            "a connection": stack.enter_context(engine.connect()),
            "a request": Request(SCOPE),
            "an HTTP connection": HTTPConnection(SCOPE),
            "a websocket": WebSocket({**SCOPE, "type": "websocket"}, None, None),  # type: ignore[arg-type]
            "an open text file": stack.enter_context(file.open()),
            "an open binary file": stack.enter_context(file.open("rb")),
            "a generator": numbers(),
            "an async generator": pages(),
        }
    engine.dispose()


FIX = {
    "an ORM instance": BY_ID,
    "an ORM instance that is a dataclass": BY_ID,
    "a session": OWN,
    "a session of a sessionmaker": OWN,
    "an async session": OWN,
    "a connection": OWN,
    "a request": OVER,
    "an HTTP connection": OVER,
    "a websocket": OVER,
    "an open text file": CLOSED,
    "an open binary file": CLOSED,
    "a generator": ONCE,
    "an async generator": ONCE,
}


def untyped(number, thing): ...


def anything(number: int, thing: Any): ...


def text(number: int, thing: str): ...


def some(number: int, *thing: Any): ...


def named(number: int, thing: dict[str, Any]): ...


@pytest.mark.parametrize("function", [untyped, anything, text, some, named])
@pytest.mark.parametrize("what", FIX)
def test_it_is_refused_by_its_parameter_and_with_a_fix(live: dict[str, Any], what: str, function: Any) -> None:
    value = {"inside": live[what]} if function is named else live[what]
    with pytest.raises(UnstorableArgument) as caught:
        Codec(function, name="report").dump((1, value), {})
    kind = type(live[what]).__name__
    assert str(caught.value) == f'task "report", parameter "thing": found {kind}: {FIX[what]}'


@pytest.mark.parametrize(
    ("annotation", "fix"),
    [(User, BY_ID), (Note, BY_ID), (list[User], BY_ID), (Session, OWN), (AsyncSession, OWN), (Request, OVER)],
)
def test_a_function_that_declares_it_is_refused_where_it_is_decorated(annotation: Any, fix: str) -> None:
    def report(thing): ...

    report.__annotations__["thing"] = annotation
    with pytest.raises(UnusableAnnotation, match=r'task "report", parameter "thing": .* cannot be stored') as caught:
        Codec(report, name="report")
    assert fix in str(caught.value)


def test_what_was_refused_was_not_consumed(live: dict[str, Any]) -> None:
    generator, file = live["a generator"], live["an open binary file"]
    for value in (generator, file):
        with pytest.raises(UnstorableArgument):
            Codec(anything, name="report").dump((1, value), {})
    assert list(generator) == [1]
    assert file.read() == b"a"
