"""How a parameter for the object may be written."""

from typing import Annotated, Any

import fastapi
import starlette.background
from fastapi import Cookie, Depends, FastAPI, Header, Query, Request, Response
from pydantic import BaseModel

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, post, situation, wait_for
from differential.tasks import note


@situation(post("/"))
def written_as_annotated(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: Annotated[kit.BackgroundTasks, "what comes later"]) -> dict[str, str]:
        background_tasks.add_task(task, "annotated")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def written_with_none_as_default(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks = None) -> dict[str, str]:
        background_tasks.add_task(task, "with a default")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def written_as_optional(kit: Kit) -> FastAPI:
    """`BackgroundTasks | None`, which FastAPI does not understand, and says so at once: never a `None` in silence."""
    app = kit.app()
    task = kit.task(note)

    try:

        @app.post("/")
        async def handler(background_tasks: kit.BackgroundTasks | None = None) -> dict[str, str]:
            if background_tasks:
                background_tasks.add_task(task, "optional")
            return {"message": "accepted"}

    except Exception:  # its class is nobody's promise
        record("refused at the declaration")
    return app


class Order(BaseModel):
    article: str
    pieces: int = 1


class Receipt(BaseModel):
    number: int
    article: str


@situation(
    post(
        "/orders/7?urgent=true",
        json={"article": "tea", "pieces": 2},
        headers={"x-shop": "north", "cookie": "basket=b1"},
    ),
    wait_for("note 2 of tea True north b1: ends"),
    post("/orders/7", json={"pieces": 2}),
    get("/openapi.json"),
)
def beside_every_other_parameter(kit: Kit) -> FastAPI:
    """The other parameters, the response model and the OpenAPI document do not notice it."""
    app = kit.app(title="Orders")
    task = kit.task(note)

    @app.post("/orders/{number}", response_model=Receipt, status_code=201)
    async def handler(
        number: int,
        order: Order,
        request: Request,
        response: Response,
        background_tasks: kit.BackgroundTasks,
        urgent: Annotated[bool, Query()] = False,
        x_shop: Annotated[str | None, Header()] = None,
        basket: Annotated[str | None, Cookie()] = None,
    ) -> Any:
        response.headers["x-path"] = request.url.path
        response.set_cookie("ordered", "yes")
        background_tasks.add_task(task, f"{order.pieces} of {order.article} {urgent} {x_shop} {basket}")
        return {"number": number, "article": order.article, "secret": "not in the model"}

    return app


@situation(post("/"))
def asked_for_as_starlettes_class(kit: Kit) -> FastAPI:
    """A parameter whose import was forgotten: FastAPI gives its own class for Starlette's."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: starlette.background.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "added to another class")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def beside_fastapis_own_class(kit: Kit) -> FastAPI:
    """A dependency from elsewhere asks for FastAPI's class, the handler for the one of the variant."""
    app = kit.app()
    task = kit.task(note)

    def from_elsewhere(background_tasks: fastapi.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from elsewhere")

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, _: Annotated[None, Depends(from_elsewhere)]
    ) -> dict[str, str]:
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    return app


@situation(
    post("/send-notification/ada@example.com?q=hello"),
    wait_for("info: message to ada@example.com"),
    post("/send-notification/bob@example.com"),
)
def file_as_the_documentation_has_it(kit: Kit) -> FastAPI:
    """A whole file, in which only the lines change that a user changes."""
    return kit.edited("documented").app


@situation(post("/signup/ada"))
def file_with_string_annotations(kit: Kit) -> FastAPI:
    """The same with `from __future__ import annotations`."""
    return kit.edited("postponed").app
