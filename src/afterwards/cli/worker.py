"""``afterwards worker``: run an application's tasks in a process that serves no requests."""

import asyncio
import importlib.util
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import typer

from afterwards.cli.application import load
from afterwards.cli.errors import ExitCode, UsageError
from afterwards.cli.health import Health, serve_health
from afterwards.cli.supervisor import supervise
from afterwards.cli.worker_process import Overrides, work

Application = Annotated[
    str | None,
    typer.Argument(
        metavar="APP",
        help="module:attribute, a module or a file. Default: the entrypoint in pyproject.toml's tool.fastapi, then "
        "main.py, app.py, api.py.",
    ),
]
Queues = Annotated[
    str | None,
    typer.Option("-q", "--queues", metavar="NAMES", help="Run only tasks of these queues, separated by commas."),
]
Concurrency = Annotated[
    int | None, typer.Option("-c", "--concurrency", min=1, help="The number of tasks that run at once in each process.")
]
Processes = Annotated[
    int, typer.Option("--processes", min=1, help="The number of processes; one that dies is replaced.")
]
Burst = Annotated[bool, typer.Option("--burst", help="Exit when no task is left that can start now.")]
Reload = Annotated[
    bool, typer.Option("--reload", help="Restart when a Python file below this folder changes. Implies --grace 1.")
]
Grace = Annotated[
    float | None, typer.Option("--grace", min=0, metavar="SECONDS", help="Time for running tasks at shutdown.")
]
HealthPort = Annotated[
    int | None,
    typer.Option("--health-port", min=1, max=65535, help="Answer GET /live and GET /ready on this port."),
]
HealthHost = Annotated[str, typer.Option("--health-host", help="The address for --health-port.")]

GRACE_IN_DEVELOPMENT = 1.0
"""Seconds for running tasks before a process is replaced, because a file has changed."""


def worker(
    app: Application = None,
    queues: Queues = None,
    concurrency: Concurrency = None,
    processes: Processes = 1,
    burst: Burst = False,
    reload: Reload = False,
    grace: Grace = None,
    health_port: HealthPort = None,
    health_host: HealthHost = "0.0.0.0",  # a container's probes come from outside
) -> None:
    """Run an application's tasks without serving requests.

    The application's lifespan runs, so tasks can use its state. On SIGTERM or Ctrl-C, running tasks have the grace
    period to end. A second Ctrl-C, or a signal two seconds later, releases them at once.

    If the application dispatches its tasks to a fleet, this process dispatches, and runs none: for a fleet's tasks that
    become due while no server runs.
    """
    if reload and importlib.util.find_spec("watchfiles") is None:
        raise UsageError("--reload needs watchfiles: pip install 'afterwards[cli]'")
    if reload and burst:
        raise UsageError(
            "--reload and --burst exclude each other: --burst ends when no task is left, --reload never ends"
        )
    if reload and grace is None:
        grace = GRACE_IN_DEVELOPMENT
    overrides = Overrides(queues=_names(queues), concurrency=concurrency, grace=_seconds(grace), burst=burst)
    if processes > 1 or reload:
        arguments = _arguments(app, queues, concurrency, burst, grace)
        address = _address(health_host, health_port)
        code = supervise(arguments, processes=processes, burst=burst, reload=reload, health=address)
    else:
        code = run(load(app), overrides, _address(health_host, health_port))
    raise typer.Exit(code)


def run(app: Any, overrides: Overrides, health: tuple[str, int] | None) -> ExitCode:
    """Run tasks in this process until a signal, or with ``burst`` until none is left. Returns an exit code."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(app, overrides, health))


async def _run(app: Any, overrides: Overrides, address: tuple[str, int] | None) -> ExitCode:
    health = Health()
    async with serve_health(health, address):
        return await work(app, overrides, health)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if it is installed, else None."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _names(queues: str | None) -> frozenset[str] | None:
    if queues is None:
        return None
    names = frozenset(name.strip() for name in queues.split(",") if name.strip())
    if not names:
        raise UsageError(f"-q {queues!r} names no queue: give names, such as -q high,default")
    return names


def _seconds(grace: float | None) -> timedelta | None:
    try:
        return None if grace is None else timedelta(seconds=grace)
    except (OverflowError, ValueError) as error:  # infinite, or no number
        raise UsageError(f"--grace {grace:g} is no span of time: give seconds, such as --grace 20") from error


def _address(host: str, port: int | None) -> tuple[str, int] | None:
    return None if port is None else (host, port)


def _arguments(
    app: str | None, queues: str | None, concurrency: int | None, burst: bool, grace: float | None
) -> list[str]:
    """Return the arguments of one supervised process."""
    options = [("-q", queues), ("-c", concurrency), ("--grace", grace)]
    given = [part for name, value in options if value is not None for part in (name, str(value))]
    return [*given, *(["--burst"] if burst else []), *(["--", app] if app else [])]
