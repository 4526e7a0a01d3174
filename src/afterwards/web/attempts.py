"""The parts of an application that its attempts need."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI

from afterwards import telemetry
from afterwards.client.client import Client, LocalWorker
from afterwards.core.options import Options
from afterwards.engine import Files
from afterwards.execution.dependencies import Resolver
from afterwards.execution.process_pool import ProcessPool
from afterwards.execution.retrying import persist
from afterwards.execution.surroundings import Surroundings
from afterwards.execution.threads import Threads
from afterwards.tasks.compatibility import check_at_start
from afterwards.tasks.process_main import main

CHECKING = "check the stored tasks"


def surroundings(app: FastAPI, options: Options, state: Mapping[str, Any], files: Files) -> Surroundings:
    """Return the resources that the attempts of an application share."""
    resolver = Resolver(app=app, limiter=CapacityLimiter(options.threads), state=state)
    return Surroundings(
        resolver, Threads(options.threads), files, options.propagate, ProcessPool(options.threads, main)
    )


@contextmanager
def local(client: Client, worker: LocalWorker) -> Iterator[None]:
    """Let senders of this process use its worker inside the block."""
    client.worker = worker
    try:
        yield
    finally:
        client.worker = None


@asynccontextmanager
async def checking(client: Client) -> AsyncIterator[None]:
    """Check meanwhile, once, which stored tasks this code could not run. The start does not wait for it."""
    checking = asyncio.create_task(_check(client))
    try:
        yield
    finally:
        checking.cancel()


async def _check(client: Client) -> None:
    try:
        await persist(CHECKING, partial(check_at_start, client))
    except Exception as error:  # it only describes: nothing may fail because of it
        telemetry.loop_broken(CHECKING, error)
