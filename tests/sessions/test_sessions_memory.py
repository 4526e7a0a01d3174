"""In an application's own tests tasks are kept in memory, whatever session or connection they are given."""

import psycopg
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks
from sessions.sessions_support import greet


def test_a_test_keeps_its_tasks_in_memory_whatever_the_connection(postgres_url: str, said: list[str]) -> None:
    app = FastAPI()
    app.state.tasks = Afterwards(app, postgres_url)

    @app.post("/")
    def handler(tasks: BackgroundTasks) -> None:
        with psycopg.connect(postgres_url) as connection:
            tasks.configure(connection=connection)
            tasks.add_task(greet, "ada")

    with TestClient(app) as client:
        client.post("/")
    assert said == ["hello ada"]
