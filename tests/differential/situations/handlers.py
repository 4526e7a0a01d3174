"""Where `BackgroundTasks` may be asked for, and how it may be written there."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.routing import APIRoute

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, post, situation, wait_for
from differential.tasks import async_note, note


@situation(post("/"))
def in_an_async_handler(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def in_a_def_handler(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def asked_for_and_not_used(kit: Kit) -> FastAPI:
    app = kit.app()

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        return {"message": "nothing to do"}

    return app


@situation(get("/?q=books"), wait_for("note searched for books: ends"), get("/"))
def in_a_dependency(kit: Kit) -> FastAPI:
    """The dependency adds a task for some requests only."""
    app = kit.app()
    task = kit.task(note)

    def searched(background_tasks: kit.BackgroundTasks, q: str | None = None) -> str | None:
        record("dependency")
        if q:
            background_tasks.add_task(task, f"searched for {q}")
        return q

    @app.get("/")
    async def handler(q: Annotated[str | None, Depends(searched)]) -> dict[str, str | None]:
        record("handler")
        return {"q": q}

    return app


@situation(post("/"))
def in_sub_dependencies(kit: Kit) -> FastAPI:
    """The tasks of all levels are merged, in the order in which they were added."""
    app = kit.app()
    task, async_task = kit.task(note), kit.task(async_note)

    def inner(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from the inner dependency")

    async def outer(background_tasks: kit.BackgroundTasks, _: Annotated[None, Depends(inner)]) -> None:
        background_tasks.add_task(async_task, "from the outer dependency")

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks, _: Annotated[None, Depends(outer)]) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    return app


@situation(get("/"), get("/"))
def one_object_in_each_request(kit: Kit) -> FastAPI:
    app = kit.app()
    seen: list[object] = []

    def first(background_tasks: kit.BackgroundTasks) -> object:
        return background_tasks

    async def second(background_tasks: kit.BackgroundTasks) -> object:
        return background_tasks

    @app.get("/")
    async def handler(
        background_tasks: kit.BackgroundTasks,
        one: Annotated[Any, Depends(first)],
        two: Annotated[Any, Depends(second)],
    ) -> dict[str, bool]:
        known = any(background_tasks is earlier for earlier in seen)
        seen.append(background_tasks)
        return {"one object": background_tasks is one is two, "seen before": known}

    return app


@situation(post("/"))
def in_a_class_and_in_a_callable_object(kit: Kit) -> FastAPI:
    """Dependencies that are classes, and objects that can be called."""
    app = kit.app()
    task = kit.task(note)

    class Audit:
        def __init__(self, background_tasks: kit.BackgroundTasks, user: str = "nobody") -> None:
            self.add = background_tasks.add_task
            self.user = user

    class Announcing:
        def __call__(self, background_tasks: kit.BackgroundTasks) -> None:
            background_tasks.add_task(task, "from an object")

    @app.post("/")
    async def handler(audit: Annotated[Audit, Depends()], _: Annotated[None, Depends(Announcing())]) -> dict[str, str]:
        audit.add(task, f"from a class, for {audit.user}")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def in_a_dependency_that_is_not_cached(kit: Kit) -> FastAPI:
    """A dependency that is called twice adds twice, to one object."""
    app = kit.app()
    task = kit.task(note)

    def counted(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "counted")

    @app.post("/")
    async def handler(
        once: Annotated[None, Depends(counted)],
        again: Annotated[None, Depends(counted, use_cache=False)],
        cached: Annotated[None, Depends(counted)],
    ) -> dict[str, str]:
        return {"message": "accepted"}

    return app


@situation(get("/"))
def in_security_dependencies(kit: Kit) -> FastAPI:
    """Scopes make FastAPI resolve dependencies apart from each other."""
    app = kit.app()
    task = kit.task(note)

    def user(background_tasks: kit.BackgroundTasks) -> str:
        background_tasks.add_task(task, "a user came")
        return "ada"

    def reader(background_tasks: kit.BackgroundTasks, name: Annotated[str, Security(user, scopes=["read"])]) -> str:
        background_tasks.add_task(task, f"{name} reads")
        return name

    @app.get("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, name: Annotated[str, Security(reader, scopes=["all"])]
    ) -> dict[str, str]:
        background_tasks.add_task(task, f"{name} was served")
        return {"name": name}

    return app


@situation(post("/shop/orders/7"))
def in_included_routers(kit: Kit) -> FastAPI:
    """A router in a router, included before the application is installed on."""
    app = FastAPI()
    task = kit.task(note)
    shop, orders = APIRouter(prefix="/shop"), APIRouter(prefix="/orders")

    @orders.post("/{number}")
    async def handler(number: int, background_tasks: kit.BackgroundTasks) -> dict[str, int]:
        background_tasks.add_task(task, f"order {number}")
        return {"number": number}

    shop.include_router(orders)
    app.include_router(shop)
    kit.install(app)
    return app


@situation(post("/inner/"))
def in_dependencies_of_application_router_and_path(kit: Kit) -> FastAPI:
    """Dependencies whose value nobody takes."""
    task = kit.task(note)

    def from_application(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from the application")

    def from_router(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from the router")

    def from_path(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from the path")

    app = kit.app(dependencies=[Depends(from_application)])
    router = APIRouter(prefix="/inner", dependencies=[Depends(from_router)])

    @router.post("/", dependencies=[Depends(from_path)])
    async def handler() -> dict[str, str]:
        record("handler")
        return {"message": "accepted"}

    app.include_router(router)
    return app


@situation(post("/api/"), wait_for("note from the mounted application: ends"), post("/"))
def in_a_mounted_application(kit: Kit) -> FastAPI:
    app = kit.app()
    api = FastAPI()
    task = kit.task(note)

    @api.post("/")
    async def mounted(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "from the mounted application")
        return {"message": "accepted below"}

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "from the outer application")
        return {"message": "accepted above"}

    app.mount("/api", api)
    return app


@situation(post("/"))
def behind_a_route_class(kit: Kit) -> FastAPI:
    """A route class that reads the response on its way out."""
    app = kit.app()
    task = kit.task(note)

    class Stamped(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def stamped(request: Request) -> Response:
                response = await handle(request)
                response.headers["x-stamp"] = "seen"
                record("route class")
                return response

            return stamped

    router = APIRouter(route_class=Stamped)

    @router.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "from the handler")
        return {"message": "accepted"}

    app.include_router(router)
    return app


@situation(post("/"))
def overridden_dependency(kit: Kit) -> FastAPI:
    """`dependency_overrides` replaces a dependency that adds tasks."""
    app = kit.app()
    task = kit.task(note)

    def real(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from the real one")

    def other(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from the other one")

    @app.post("/")
    async def handler(_: Annotated[None, Depends(real)]) -> dict[str, str]:
        return {"message": "accepted"}

    app.dependency_overrides[real] = other
    return app
