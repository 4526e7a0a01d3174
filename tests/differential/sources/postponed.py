"""Annotations that FastAPI has to look up in the module."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI

from differential.diary import record

app = FastAPI()


# a task
async def send_welcome(name: str, day: date, *friends: str) -> None:
    record(f"welcome to {name} on {day.isoformat()} from {friends}")


def greeting(background_tasks: BackgroundTasks, name: str) -> str:
    background_tasks.add_task(send_welcome, name, date(2026, 1, 2))
    return f"Hello, {name}"


@app.post("/signup/{name}")
async def signup(
    name: str,
    background_tasks: Annotated[BackgroundTasks, "later"],
    text: Annotated[str, Depends(greeting)],
) -> dict[str, str]:
    background_tasks.add_task(send_welcome, name, date(2026, 1, 3), "ada", "bob")
    return {"message": text}
