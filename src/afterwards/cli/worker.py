"""``afterwards worker``: run the tasks of an application that serves elsewhere."""

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Annotated, Any

import typer

from afterwards.cli.application import load
from afterwards.cli.errors import ExitCode, UsageError
from afterwards.cli.health import Health, serve_health
from afterwards.cli.processes import supervise
from afterwards.cli.working import Orders, work

Application = Annotated[
    str | None,
    typer.Argument(
        metavar="APP",
        help="module:attribute, a module or a file. Without it: the entrypoint in pyproject.toml's tool.fastapi, then "
        "main.py, app.py, api.py.",
    ),
]
Queues = Annotated[
    str | None, typer.Option("-q", "--queues", metavar="NAMES", help="Only these queues, separated by commas.")
]
Concurrency = Annotated[int | None, typer.Option("-c", "--concurrency", min=1, help="How many tasks run at once.")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="How many processes; one that dies is replaced.")]
Burst = Annotated[bool, typer.Option("--burst", help="End when no task is left that could begin now.")]
Reload = Annotated[bool, typer.Option("--reload", help="Start again when a Python file below this folder changes.")]
Grace = Annotated[
    float | None, typer.Option("--grace", min=0, metavar="SECONDS", help="How long running tasks may go on at the end.")
]
HealthPort = Annotated[
    int | None,
    typer.Option("--health-port", min=1, max=65535, help="Answer GET /live and GET /ready on this port."),
]
HealthHost = Annotated[str, typer.Option("--health-host", help="The address for --health-port.")]


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
    """Run tasks, and serve no requests.

    The application's lifespan runs, so that tasks find its state. SIGTERM and Ctrl-C let running tasks end within the
    grace period; a second one gives them back at once.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the store cannot be opened.
    """
    if reload and importlib.util.find_spec("watchfiles") is None:
        raise UsageError("--reload needs watchfiles: pip install 'afterwards[cli]'")
    if reload and burst:
        raise UsageError("--reload and --burst exclude each other: one goes on, the other one ends")
    orders = Orders(queues=_names(queues), concurrency=concurrency, grace=grace, burst=burst)
    if processes > 1 or reload:
        arguments = _arguments(app, queues, concurrency, burst, grace)
        code = supervise(arguments, processes=processes, reload=reload, health=_address(health_host, health_port))
    else:
        code = run(load(app), orders, _address(health_host, health_port))
    raise typer.Exit(code)


def run(app: Any, orders: Orders, health: tuple[str, int] | None) -> ExitCode:
    """Run tasks in this process until it is told to end."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(app, orders, health))


async def _run(app: Any, orders: Orders, address: tuple[str, int] | None) -> ExitCode:
    health = Health()
    async with serve_health(health, address):
        return await work(app, orders, health)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop, where it is installed."""
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
        raise UsageError(f"-q {queues!r} names no queue: give names, as -q high,default")
    return names


def _address(host: str, port: int | None) -> tuple[str, int] | None:
    return None if port is None else (host, port)


def _arguments(
    app: str | None, queues: str | None, concurrency: int | None, burst: bool, grace: float | None
) -> list[str]:
    """The arguments of one process of several."""
    options = [("-q", queues), ("-c", concurrency), ("--grace", grace)]
    given = [part for name, value in options if value is not None for part in (name, str(value))]
    return [*given, *(["--burst"] if burst else []), *(["--", app] if app else [])]
