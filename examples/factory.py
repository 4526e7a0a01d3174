"""An application factory, and a task with dependencies (`Depends`), like an endpoint.

AFTERWARDS_URL=sqlite:///notes-tasks.db uvicorn --factory factory:create_app
curl -X POST localhost:8000/notes -H "content-type: application/json" -d '{"text": "buy milk"}'
curl localhost:8000/notes
"""

import sqlite3
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel

from afterwards import Afterwards, BackgroundTasks, task

tasks = Afterwards()  # installed by create_app
router = APIRouter()


class Note(BaseModel):
    text: str


def get_database(request: Request) -> Iterator[sqlite3.Connection]:
    """Provide a connection to a request or a task, and commit if it succeeds. `request.app` works in both."""
    connection = sqlite3.connect(request.app.state.database, check_same_thread=False)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


Database = Annotated[sqlite3.Connection, Depends(get_database)]


@task(retries=3)
def count_words(id: int, database: sqlite3.Connection = Depends(get_database)) -> None:
    """A `def` task: it runs in a thread for tasks, not in one of the endpoints' threads."""
    [text] = database.execute("SELECT text FROM notes WHERE id = ?", [id]).fetchone()
    database.execute("UPDATE notes SET words = ? WHERE id = ?", [len(text.split()), id])


@router.post("/notes", status_code=201)
def add_note(note: Note, database: Database, background_tasks: BackgroundTasks):
    id = database.execute("INSERT INTO notes (text) VALUES (?)", [note.text]).lastrowid
    background_tasks.add_task(count_words, id)  # starts when this request has committed, so it finds the row
    return {"id": id}


@router.get("/notes")
def list_notes(database: Database):
    rows = database.execute("SELECT id, text, words FROM notes ORDER BY id").fetchall()
    return [{"id": id, "text": text, "words": words} for id, text, words in rows]


def create_app(database: str = "notes.db") -> FastAPI:
    app = FastAPI()
    app.state.database = database
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT, words INTEGER)")
    connection.close()
    app.include_router(router)
    tasks.install(app)
    return app
