"""An application's own tests, which start Celery's in-process worker."""

from collections.abc import Iterator

import pytest
from celery import signals
from celery.contrib.testing.worker import start_worker
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, task
from afterwards.celery import CeleryDispatch
from celery_calls.broker import an_application


@task
async def welcome_in_a_test(email: str) -> str:
    return f"Welcome, {email}!"


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Keep Celery from setting up the logging of this process: it does not undo that, and no later test sees a line."""

    def keep(**_: object) -> None:
        pass

    signals.setup_logging.connect(keep)
    yield
    signals.setup_logging.disconnect(keep)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_tasks_run_within_the_request_beside_celerys_worker_of_a_test(pool: str) -> None:
    app, fleet = FastAPI(), an_application()
    tasks = Afterwards(app, dispatch=CeleryDispatch(fleet))

    @fleet.task(shared=False)
    def resize(photo: str) -> str:
        return f"small {photo}"

    @app.post("/signup")
    async def signup(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(resize, "cat.png")
        return background_tasks.add_task(welcome_in_a_test, "ada").id

    @app.get("/state/{id}")
    async def state(id: str) -> str:
        return (await (await tasks.get(id)).status()).state

    with start_worker(fleet, pool=pool, perform_ping_check=False), TestClient(app) as client:
        assert client.get(f"/state/{client.post('/signup').json()}").json() == "succeeded"
