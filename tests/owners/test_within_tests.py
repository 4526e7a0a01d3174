"""The router in an application's own tests: a request returns when its tasks have run."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from owners.shop import ADA, EVE, a_shop, owns


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, headers=ADA)


def test_a_task_has_finished_when_it_is_accepted() -> None:
    app, tasks = a_shop("sqlite:///never-made.db")
    app.include_router(tasks.router(owner=owns), prefix="/tasks")
    with client_of(app) as client:
        task = client.post("/add/count").headers["Location"]
        assert client.get(task).json()["state"] == "succeeded"
        assert client.get(f"{task}/result").json() == 3
        assert "event: finished" in client.get(f"{task}/events").text
        assert client.get(task, headers=EVE).status_code == 404


def test_without_a_lifespan_too() -> None:
    app, tasks = a_shop("sqlite:///never-made.db")
    app.include_router(tasks.router(owner=owns), prefix="/tasks")
    client = client_of(app)
    task = client.post("/add/count").headers["Location"]
    assert "event: finished" in client.get(f"{task}/events").text
