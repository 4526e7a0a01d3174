"""What tasks are given by dependencies and by the application."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from differential.diary import AT_SHUTDOWN, record
from differential.kit import Kit
from differential.scene import get, post, situation, wait_for


class Postbox:
    """A live service: an object with state, which no JSON can carry."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = 0

    def send(self, letter: str) -> None:
        self.sent += 1
        record(f"{self.name} sends {letter}, its number {self.sent}")


_postbox = Postbox("the postbox")


def postbox() -> Postbox:
    return _postbox


def letter_sent(letter: str, box: Annotated[Postbox, Depends(postbox)]) -> None:
    box.send(letter)


@situation(post("/"))
def injected_service(kit: Kit) -> FastAPI:
    """A plain function is handed the service; a task function asks for it with `Depends`."""
    app = kit.app()
    task = kit.task(letter_sent)

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, box: Annotated[Postbox, Depends(postbox)]
    ) -> dict[str, str]:
        service = () if kit.durable else (box,)
        background_tasks.add_task(task, "a card", *service)
        background_tasks.add_task(task, "a parcel", *service)
        return {"message": "accepted"}

    return app


@situation(post("/"))
def overridden_service(kit: Kit) -> FastAPI:
    """`dependency_overrides` holds for the task as well."""
    app = kit.app()
    task = kit.task(letter_sent)
    app.dependency_overrides[postbox] = lambda: Postbox("the postbox of the tests")

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, box: Annotated[Postbox, Depends(postbox)]
    ) -> dict[str, str]:
        service = () if kit.durable else (box,)
        background_tasks.add_task(task, "a card", *service)
        return {"message": "accepted"}

    return app


def board(request: Request) -> list[str]:
    return request.app.state.board


def written_on_the_board(text: str, board: Annotated[list[str], Depends(board)]) -> None:
    board.append(text)
    record(f"board: {board}")


@situation(post("/"), wait_for("board: ['opened', 'from the task']"), get("/"))
def state_of_the_application(kit: Kit) -> FastAPI:
    """What the lifespan put on `app.state` is one object for handlers and tasks."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.board = ["opened"]
        yield
        record(f"{AT_SHUTDOWN}the board says {app.state.board}")

    app = kit.app(lifespan=lifespan)
    task = kit.task(written_on_the_board)

    @app.post("/")
    async def handler(request: Request, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        service = () if kit.durable else (request.app.state.board,)
        background_tasks.add_task(task, "from the task", *service)
        return {"message": "accepted"}

    @app.get("/")
    async def read(request: Request) -> list[str]:
        return request.app.state.board

    return app


async def delivered(letter: str, box: Any) -> None:
    record(f"{type(box).__name__} delivers {letter}")


@situation(post("/"))
def live_object_as_an_argument(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(delivered)

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, box: Annotated[Postbox, Depends(postbox)]
    ) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "a card", box)
        return {"message": "accepted"}

    return app


class Connection:
    def __init__(self) -> None:
        self.is_open = True


def connection() -> Iterator[Connection]:
    made = Connection()
    yield made
    made.is_open = False


@situation(post("/request"), wait_for("connection is open: True"), post("/function"))
def plain_function_that_is_given_a_session(kit: Kit) -> FastAPI:
    """Open still when it is request-scoped, closed when it is function-scoped. Live objects, so a plain function."""
    app = kit.app()

    def looks(connection: Connection) -> None:
        record(f"connection is open: {connection.is_open}")

    @app.post("/request")
    async def request_scoped(
        background_tasks: kit.BackgroundTasks, connection: Annotated[Connection, Depends(connection)]
    ) -> dict[str, str]:
        background_tasks.add_task(looks, connection)
        return {"message": "accepted"}

    @app.post("/function")
    async def function_scoped(
        background_tasks: kit.BackgroundTasks, connection: Annotated[Connection, Depends(connection, scope="function")]
    ) -> dict[str, str]:
        background_tasks.add_task(looks, connection)
        return {"message": "accepted"}

    return app


user: ContextVar[str] = ContextVar("user", default="nobody")


async def signed(text: str) -> None:
    record(f"{text}: signed by {user.get()}")
    record(f"{text}: done")


@situation(post("/"), wait_for("letter: done"), post("/thread"))
def context_variables(kit: Kit) -> FastAPI:
    """Set in a handler: FastAPI's tasks see them when the handler was `async def`."""
    app = kit.app()
    task = kit.task(signed)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        user.set("ada")
        background_tasks.add_task(task, "letter")
        return {"message": "accepted"}

    @app.post("/thread")
    def thread(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        user.set("bob")
        background_tasks.add_task(task, "letter from a thread")
        return {"message": "accepted"}

    return app
