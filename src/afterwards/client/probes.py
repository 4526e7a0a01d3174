"""The probes of an application: whether its process works, and whether its store answers."""

import asyncio

from afterwards import telemetry
from afterwards.client.client import Client
from afterwards.core.errors import EngineError
from afterwards.core.verdict import Verdict, liveness
from afterwards.engine import Query

STORE_TIMEOUT = 2.0
"""Seconds within which the store must answer, else the process is not ready."""


def live(client: Client) -> Verdict:
    """Decide whether the worker of this process does its work. A store that is away is no reason for a restart."""
    return liveness(client.health.vitals())


async def ready(client: Client) -> Verdict:
    """Decide whether tasks can be stored now, too."""
    alive = live(client)
    if not alive.well:
        return alive
    try:
        async with asyncio.timeout(STORE_TIMEOUT):
            await (await client.open()).find(Query(limit=1))
    except TimeoutError:
        return Verdict(False, f"the store has not answered within {STORE_TIMEOUT:g} s")
    except EngineError as error:
        telemetry.store_silent(error)
        return Verdict(False, silent_store(error))
    return Verdict(True, f"{alive.reason}, and the store answers")


def silent_store(error: EngineError) -> str:
    """Return the reason without the error's text, which names the server or the file: anybody may see a probe."""
    return f"the store does not answer ({type(error).__name__}, see the log)"
