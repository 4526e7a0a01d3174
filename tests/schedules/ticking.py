"""Task functions with schedules, which every worker of this folder's tests fires."""

import asyncio
from typing import Annotated

from fastapi import Depends

from afterwards import Retry, task

said: list[str] = []


def greeting() -> str:
    return "injected"


@task(every=1)
async def tick() -> None:
    said.append("tick")


@task(every=1, missed="all")
async def overlap(seconds: float = 20) -> None:
    said.append("overlap began")
    await asyncio.sleep(seconds)


@task(every=1, retries=Retry(1, wait=0))
def stumble(how: Annotated[str, Depends(greeting)], text: str = "default") -> str:
    said.append(f"stumble {how} {text}")
    if said.count(f"stumble {how} {text}") == 1:
        raise ConnectionError("once")
    return text


@task(cron="0 3 * * *", tz="Europe/Rome", queue="reports", priority=7)
async def nightly(day: str = "today") -> str:
    said.append(f"nightly {day}")
    return day


@task
async def unscheduled(day: str = "today") -> None: ...
