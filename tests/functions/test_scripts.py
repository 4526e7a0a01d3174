"""A script that stores tasks where no worker looks for them is told so."""

import os
import re
from pathlib import Path
from textwrap import dedent

import pytest

from afterwards import telemetry
from face.processes import output, run, uvicorn, write_application

SCRIPT = """
import asyncio
from main import app, note

{calls}
"""

TOLD = r"a task was stored in sqlite:///(\S+), where no worker has ever run.*AFTERWARDS_URL=sqlite:////"


def script(folder: Path, calls: str, **environment: str) -> str:
    """What is told to somebody who runs the script in a folder beside that of the application."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    ran = run(
        SCRIPT.format(calls=dedent(calls)),
        elsewhere,
        PYTHONPATH=os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        **environment,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


@pytest.mark.parametrize(
    "calls",
    [
        "for text in 'ab':\n    note.enqueue_sync(text)",
        """
        async def main() -> None:
            await asyncio.gather(*(note.enqueue(str(number)) for number in range(20)))
        asyncio.run(main())
        """,
        """
        from afterwards import chain
        asyncio.run(chain(note.call("a"), note.call("b")))
        """,
        """
        from afterwards import BackgroundTasks
        async def main() -> None:
            tasks = BackgroundTasks()
            for text in "ab":
                tasks.add_task(note, text)
                await tasks.flush()
        asyncio.run(main())
        """,
        """
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session
        with Session(create_engine("sqlite:///afterwards.db")) as session:
            for text in "ab":
                note.options(session=session).enqueue_sync(text)
                session.commit()
        """,
    ],
)
def test_a_script_in_another_folder_is_told_once_of_the_file_that_it_made(tmp_path: Path, calls: str) -> None:
    write_application(tmp_path, "Afterwards(app)")
    told = script(tmp_path, calls)
    [path] = re.findall(TOLD, told)
    assert Path(path) == (tmp_path / "elsewhere" / "afterwards.db").resolve()
    assert Path(path).exists()
    assert len(re.findall(TOLD, script(tmp_path, calls))) == 1  # of the next one, too: still nobody runs them


def test_a_script_that_stores_where_a_worker_was_is_told_nothing(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path) as server:
        server.post("/note/a")
        server.writes("a")
        server.stops()
    url = f"sqlite:///{tmp_path / 'afterwards.db'}"
    assert "afterwards" not in script(tmp_path, "note.enqueue_sync('b')", AFTERWARDS_URL=url)


def test_nobody_is_told_of_memory_and_of_an_application_that_starts(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def lifespan(app: FastAPI):
            await note.enqueue("at the start")
            yield

        app.router.lifespan_context = lifespan
        """,
        "Afterwards(app)",
    )
    with uvicorn(tmp_path) as server:
        server.writes("at the start")
        server.stops()
        assert "no worker has ever run" not in server.output
    memory = output(
        """
        from afterwards import Afterwards, task
        from fastapi import FastAPI

        @task
        def note(text: str) -> None: ...

        app = FastAPI()
        Afterwards(app, "memory://")
        print(note.enqueue_sync("a").stored)
        """,
        tmp_path,
    )
    assert memory == "True\n"


def test_without_a_lifespan_the_first_request_is_told_nothing(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.post("/note/a")
        server.writes("a")
        assert "no worker has ever run" not in server.output


def test_a_script_that_stores_in_a_database_is_told_of_a_database(caplog: pytest.LogCaptureFixture) -> None:
    telemetry.no_worker("postgresql://db/shop", in_a_file=False)
    assert "If the server uses another database" in caplog.text
    assert "AFTERWARDS_URL=postgresql://" in caplog.text
