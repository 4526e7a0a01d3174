"""The shortest application with a background task that survives a crash.

    uvicorn quickstart:app
    curl -X POST localhost:8000/signup/ada@example.com

Kill the server at any moment after the answer: the line is in `mails.txt` after the next start.
"""

import time
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards, task

app = FastAPI()
tasks = Afterwards(app)  # tasks are kept in ./afterwards.db


@task(retries=3)  # this one must not be lost
def send_welcome(email: str) -> None:
    time.sleep(0.1)  # the mail server takes its time
    with Path("mails.txt").open("a") as mails:
        mails.write(f"Welcome, {email}!\n")


def count_visit(path: str) -> None:  # this one may be lost: a plain function runs as in FastAPI
    with Path("visits.txt").open("a") as visits:
        visits.write(f"{path}\n")


@app.post("/signup/{email}")
async def signup(email: str, background_tasks: BackgroundTasks):
    background_tasks.add_task(send_welcome, email)
    return {"message": "Welcome!"}


@app.get("/")
async def home(background_tasks: BackgroundTasks):
    background_tasks.add_task(count_visit, "/")
    return {"message": "Come in!"}
