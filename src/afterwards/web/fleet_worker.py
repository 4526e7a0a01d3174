"""Run an application's tasks in a process of a fleet, which brings them."""

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from afterwards import engines
from afterwards.client.client import Client
from afterwards.core.options import Options
from afterwards.core.task import Lease
from afterwards.core.verdict import Role
from afterwards.dispatch.dispatched_worker import DispatchedWorker
from afterwards.dispatch.fleet import Fleet, FleetWorker, Serve, name_of
from afterwards.tasks.failure_notice import notice_maker
from afterwards.tasks.registry import registry
from afterwards.web.attempts import checking, local, surroundings
from afterwards.web.dispatching import check_store
from afterwards.web.embedded import Duty, Embedded
from afterwards.web.runners import replaced_for


def serve_in(fleet: Fleet, app: FastAPI, client: Client) -> Serve:
    """Return what the processes of a fleet call to run the application's tasks.

    The application's lifespan runs in it. ``AFTERWARDS_WORKER`` and ``worker=False`` are for processes that serve.
    """

    @asynccontextmanager
    async def serve(*, queues: frozenset[str] | None = None, slots: int = 1) -> AsyncIterator[FleetWorker]:
        _refuse_main_thread()
        if engines.are_replaced():
            yield _NothingToRun()
            return
        check_store(client, fleet)
        threads = max(slots, client.options.threads)
        options = replace(client.options, queues=queues, concurrency=slots, threads=threads)
        embedded = Embedded(client, options, _arrivals(fleet, app, client, options))
        with replaced_for(client, embedded):
            app.middleware_stack = app.build_middleware_stack()  # as the first call of a server does
            async with app.router.lifespan_context(app):
                assert embedded.running is not None
                yield embedded.running

    return serve


class _NothingToRun:
    """The worker of a fleet inside a test, whose tasks run within its requests: nothing is sent to the fleet."""

    async def run(self, lease: Lease) -> bool:
        return False

    def drain(self) -> None:
        pass


def _arrivals(fleet: Fleet, app: FastAPI, client: Client, options: Options) -> Duty[DispatchedWorker]:
    """Return the duty to run the tasks that a fleet brings."""

    @asynccontextmanager
    async def begin(state: Mapping[str, Any]) -> AsyncIterator[DispatchedWorker]:
        engine = engines.shared(client.url)
        worker = DispatchedWorker(
            *(engine, registry, options, surroundings(app, options, state, engine)),
            make_notice=notice_maker(client),
            clock=lambda: datetime.now(UTC),
            health=client.health,
            plain_runs=client.plain_runs,
        )
        async with worker, checking(client):
            with local(client, worker):
                yield worker

    return Duty(role=Role.FLEET_WORKER, fleet=name_of(fleet), begin=begin)


def _refuse_main_thread() -> None:
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError(
            "serve() was called in the main thread, where the application would handle the signals that are for the "
            "fleet: run its event loop in a thread of its own"
        )
