"""Run an application's tasks while it serves: by a worker on its event loop."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from afterwards import engines
from afterwards.client.client import Client
from afterwards.core.options import Options
from afterwards.core.verdict import Role
from afterwards.tasks.failure_notice import notice_maker
from afterwards.tasks.registry import registry
from afterwards.tasks.timetable import timetable
from afterwards.web.attempts import checking, local, surroundings
from afterwards.web.embedded import Duty
from afterwards.worker.worker import Worker


def worker(app: FastAPI, client: Client, options: Options) -> Duty[Worker]:
    """Return the duty to run the application's tasks."""

    @asynccontextmanager
    async def begin(state: Mapping[str, Any]) -> AsyncIterator[Worker]:
        engine = engines.shared(client.url)
        worker = Worker(
            engine,
            registry,
            options,
            surroundings(app, options, state, engine),
            make_notice=notice_maker(client),
            timetable=timetable(client),
            clock=lambda: datetime.now(UTC),
            health=client.health,
            plain_runs=client.plain_runs,
        )
        async with worker, checking(client):
            with local(client, worker):
                yield worker

    return Duty(role=Role.WORKER, begin=begin)
