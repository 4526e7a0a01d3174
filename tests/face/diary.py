"""What happened in a test, in order; and task functions that write it down."""

import asyncio
import time

from afterwards import task

said: list[str] = []


@task
async def note(text: str) -> str:
    said.append(text)
    return text


@task
def note_in_thread(text: str) -> str:
    said.append(text)
    return text


@task
async def fail(text: str) -> None:
    said.append(text)
    raise ValueError(text)


@task
async def take(seconds: float, text: str = "") -> str:
    """Let some time pass."""
    said.append(f"{text} began")
    await asyncio.sleep(seconds)
    said.append(f"{text} ended")
    return text


@task
def take_in_thread(seconds: float, text: str = "") -> str:
    said.append(f"{text} began")
    time.sleep(seconds)
    said.append(f"{text} ended")
    return text


async def plain(text: str) -> None:
    said.append(text)


def plain_in_thread(text: str) -> None:
    said.append(text)
