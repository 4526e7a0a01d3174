"""Dispatch an application's tasks to a fleet while it serves."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from afterwards import engines
from afterwards.client.client import Client
from afterwards.core.errors import InvalidOption
from afterwards.core.options import Options
from afterwards.core.verdict import Role
from afterwards.dispatch.dispatcher import Dispatcher
from afterwards.dispatch.fleet import Fleet, name_of
from afterwards.tasks.failure_notice import notice_maker
from afterwards.tasks.registry import registry
from afterwards.tasks.timetable import timetable
from afterwards.web.attempts import checking
from afterwards.web.embedded import Duty


def dispatcher(client: Client, fleet: Fleet, options: Options) -> Duty[Dispatcher]:
    """Return the duty to dispatch the application's tasks."""

    @asynccontextmanager
    async def begin(state: Mapping[str, Any]) -> AsyncIterator[Dispatcher]:
        dispatcher = Dispatcher(
            *(engines.shared(client.url), fleet, registry, options),
            make_notice=notice_maker(client),
            timetable=timetable(client),
            clock=lambda: datetime.now(UTC),
            health=client.health,
            plain_runs=client.plain_runs,
        )
        async with dispatcher, checking(client):
            yield dispatcher

    return Duty(role=Role.DISPATCHER, fleet=name_of(fleet), begin=begin)


def check_store(client: Client, fleet: Fleet) -> None:
    """Raise InvalidOption if a fleet could not see the tasks of this store."""
    if not (engines.are_replaced() or engines.is_shared(client.url)):
        raise InvalidOption(
            f"dispatch={name_of(fleet)}: tasks in {engines.shown(client.url)} are visible to one process only, so the "
            "fleet would never find any. Give Afterwards(...) another URL, or set AFTERWARDS_URL"
        )
