"""The handle of a Celery task: state, result and cancel are Celery's, asked by a thread. A real worker over Redis."""

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import BaseBackend
from fastapi import FastAPI

from afterwards import Afterwards, InvalidOption, NotFinished, TaskFailed
from afterwards.core.errors import NoResultBackend
from afterwards.web.accepted import Accepted
from celery_calls.broker import an_application
from celery_calls.fleet import a_redis_server
from face.processes import Program
from face.serving import until_async
from servers.redis import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("celery-handles"), pytest.mark.afterwards(real=True)]

SHOP = """
import os, time
from celery import Celery

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BROKER"])

@app.task
def add(x, y):
    return x + y

@app.task
def fail(text):
    raise ValueError(text)
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with a_redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def worker(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    command = "-m celery -A shop worker --pool solo --loglevel INFO --without-gossip --without-mingle"
    with Program([sys.executable, *command.split()], folder, BROKER=redis.url) as running:
        running.says(r"celery@\S+ ready\.")
        yield running


@pytest.fixture
def fleet(worker: Program, redis: RedisServer) -> Celery:
    return Celery("shop", broker=redis.url, backend=redis.url, set_as_current=False)


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    app = FastAPI()
    tasks = Afterwards(app, url)
    async with app.router.lifespan_context(app):
        yield tasks


async def test_it_waits_for_the_result(tasks: Afterwards, fleet: Celery) -> None:
    handle: Any = await tasks.enqueue(fleet.signature("shop.add"), 40, 2)
    assert await handle.result(timeout=60) == 42
    assert await handle.status() == "SUCCESS"


async def test_a_failure_has_the_exception_as_its_cause(tasks: Afterwards, fleet: Celery) -> None:
    handle: Any = await tasks.enqueue(fleet.signature("shop.fail"), "no such order")
    with pytest.raises(TaskFailed, match="is FAILURE: ValueError: no such order") as caught:
        await handle.result(timeout=60)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("look", range(1, 9))
async def test_it_may_finish_between_any_two_looks_at_the_backend(tasks: Afterwards, look: int) -> None:
    class FinishesAtALook(BaseBackend):  # type: ignore[misc]
        looks = 0

        def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
            self.looks += 1
            failed = {"status": "FAILURE", "result": self.prepare_exception(ValueError("no such order"), "json")}
            return {"task_id": task_id, **(failed if self.looks >= look else {"status": "PENDING", "result": None})}

    fleet = an_application(backend=FinishesAtALook)
    handle: Any = await tasks.enqueue(fleet.signature("shop.fail"), "no such order")
    with pytest.raises(TaskFailed, match="is FAILURE: ValueError: no such order"):
        await handle.result(timeout=60)


async def test_a_revoked_task_does_not_run(tasks: Afterwards, fleet: Celery) -> None:
    before: Any = await tasks.enqueue(fleet.signature("shop.add"), 1, 2)
    await before.result(timeout=60)  # from now on the worker hears what is told to all
    handle: Any = await tasks.enqueue(fleet.signature("shop.add", args=(1, 2), countdown=20))
    with pytest.raises(NotFinished, match="did not finish within"):
        await handle.result(timeout=0.01)
    await handle.cancel()

    async def revoked() -> bool:
        return bool(await handle.status() == "REVOKED")

    await until_async(revoked)
    with pytest.raises(TaskFailed, match="is REVOKED"):
        await handle.result(timeout=60)


async def test_without_a_result_backend_the_error_says_so(tasks: Afterwards) -> None:
    fleet = an_application()

    @fleet.task(name="mail", shared=False)
    def mail() -> None: ...

    @fleet.task(name="quiet", shared=False, ignore_result=True)
    def quiet() -> None: ...

    handle: Any = await tasks.enqueue(mail)
    for ask in (handle.status, handle.result):
        with pytest.raises(NoResultBackend, match="has no result backend"):
            await ask()
    fleet.conf.result_backend = "cache+memory://"
    fleet._backend_cache, fleet._local = None, type(fleet._local)()  # it was made without one
    with pytest.raises(NoResultBackend, match="it has ignore_result=True"):
        await (await tasks.enqueue(quiet)).status()  # type: ignore[func-returns-value]
    with pytest.raises(InvalidOption, match="for a @task function"):
        Accepted(handle)
