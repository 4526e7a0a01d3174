"""An application with a dashboard, in a process of its own: ``python -m e2e.server '{"prefix": "/ops"}'``.

It prints its port once it listens.
"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, Header

from afterwards import Access, Afterwards, engines, progress, task
from afterwards.core.errors import EngineUnavailable
from afterwards.core.routing import LiveWorker
from afterwards.core.task import Task
from afterwards.engine import Engine, Query
from afterwards.engines.memory import MemoryEngine
from e2e.payloads import PAYLOADS
from e2e.seeds import Clock, Sower, Texts


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a test asks for."""

    url: str = "memory://"
    prefix: str = "/afterwards"
    root_path: str = ""
    seed: str = "states"  # states, empty, payloads, picture, many
    worker: bool = False


step = asyncio.Event()


@task
async def send_welcome(email: str) -> None:
    """Wait for the test before each step."""
    bar = progress(total=3, desc="writing")
    for _ in range(3):
        await step.wait()
        step.clear()
        bar.update(1)


@task(every=300)
async def sync_orders() -> None: ...


@task(cron="0 3 * * *", tz="Europe/Berlin")
async def nightly_report() -> None: ...


def visitor(level: Annotated[str, Header()] = "act") -> Any:
    return Access(level), "anna"


def application(setting: Setting, clock: Clock) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = await tasks.client.open()
        workers = await sow(engine, clock, setting.seed)
        living = asyncio.create_task(live(engine, workers))
        yield
        living.cancel()

    app = FastAPI(lifespan=lifespan)
    tasks = Afterwards(
        app, setting.url, worker=setting.worker, dashboard=setting.prefix, auth=Depends(visitor), grace=0.2
    )

    @app.post("/signup/{email}")
    async def signup(email: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(send_welcome, email)

    @app.post("/step")
    async def go_on() -> None:
        step.set()

    @app.post("/away")
    async def go_away() -> None:
        """Let the store be away from now on."""
        away.set()

    return app


class MayBeAway(MemoryEngine):
    """A store that can be away."""

    async def find(self, query: Query) -> list[Task]:
        if away.is_set():
            raise EngineUnavailable("the connection was refused")
        return await super().find(query)


away = asyncio.Event()


async def sow(engine: Engine, clock: Clock, seed: str) -> list[LiveWorker]:
    """Store the tasks that a test asks for. Returns the workers that live."""
    texts = [Texts.all_being(payload) for payload in PAYLOADS] if seed == "payloads" else [Texts()]
    sowers = [Sower(engine, clock, one) for one in texts] if seed != "empty" else []
    for sower in sowers:
        if seed == "picture":
            await sower.history(24, 1500)
            await sower.history(1, 700)
        if seed == "many":
            await sower.many(100_000)
        await sower.every_state()
    return [sower.worker for sower in sowers]


async def live(engine: Engine, workers: Sequence[LiveWorker]) -> None:
    """Announce workers again and again, as they do: on a slow machine they would seem to be silent."""
    while True:
        await asyncio.sleep(5)
        await engine.announce(workers)


def main() -> None:
    setting = Setting(**json.loads(sys.argv[1]))
    clock = Clock()

    def made(url: str) -> Engine:
        return MayBeAway(clock=clock)

    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(application(setting, clock), root_path=setting.root_path, log_level="warning")
    if setting.url.startswith("memory"):
        with engines.replaced(made):
            uvicorn.Server(config).run(sockets=[listening])
    else:
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
