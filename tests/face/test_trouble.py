"""When the file cannot be written: 503 with ``Retry-After``, never a 2xx; and all is well again when it can."""

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from afterwards import Afterwards, BackgroundTasks
from afterwards.core.errors import EngineError
from face.diary import note, plain
from face.processes import uvicorn, write_application
from face.serving import a_client, serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def test_a_file_locked_by_another_program(tmp_path: Path, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, f"sqlite:///{tmp_path / 'tasks.db'}")

    @app.post("/add_task")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "added")
        tasks.add_task(plain, "plain")

    @app.post("/enqueue")
    async def enqueue() -> None:
        await note.enqueue("enqueued")

    mounted = FastAPI()
    mounted.post("/enqueue")(enqueue)
    app.mount("/mounted", mounted)

    @app.post("/by_hand")
    async def by_hand() -> JSONResponse:
        tasks = BackgroundTasks()
        tasks.add_task(note, "by hand")
        tasks.add_task(plain, "plain by hand")
        return JSONResponse({}, background=tasks)

    async with serving(app) as http:
        with closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for path in ("/add_task", "/enqueue", "/mounted/enqueue", "/by_hand"):
                refused(await http.post(path))
            other.execute("ROLLBACK")
        assert said == []
        for path in ("/add_task", "/enqueue", "/by_hand"):
            assert (await http.post(path)).status_code == 200
        await until(lambda: sorted(said) == ["added", "by hand", "enqueued", "plain", "plain by hand"])


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A limit on the size of files, which a server sets itself when it is told to, is as good as a full disk."""
    write_application(
        tmp_path,
        """
        import resource

        Afterwards(app)

        @app.post("/enqueue/{text}")
        async def enqueue(text: str) -> None:
            await note.enqueue(text)

        @app.post("/limit/{size}")
        async def limit(size: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        """,
    )
    with uvicorn(tmp_path) as server:
        async with a_client(server.url) as http:
            await http.post("/note/before")
            server.writes("before")
            await http.post("/limit/20000")  # less than the file has already, more than the log of the server
            refused(await http.post("/note/added"))
            refused(await http.post("/enqueue/enqueued"))
            await http.post(f"/limit/{resource.RLIM_INFINITY}")
            assert (await http.post("/note/after")).status_code == 200
            server.writes("after")
    assert server.diary() == ["before", "after"]
    assert "could not be stored (note)" in server.output


@pytest.mark.parametrize("place", ["no/such/folder/tasks.db", "."])
async def test_a_place_where_no_file_can_be_stops_the_start_and_names_the_place(tmp_path: Path, place: str) -> None:
    app = FastAPI()
    Afterwards(app, f"sqlite:///{tmp_path / place}")
    with pytest.raises(EngineError, match=str(tmp_path)):
        async with app.router.lifespan_context(app):
            pass


async def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("not a database " * 100)
    app = FastAPI()
    Afterwards(app, f"sqlite:///{tmp_path / 'tasks.db'}")
    with pytest.raises(EngineError, match="not an SQLite database"):
        async with app.router.lifespan_context(app):
            pass


def refused(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
