"""The typer application with all commands."""

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from afterwards.cli.backup import backup
from afterwards.cli.cancel import cancel
from afterwards.cli.check import check
from afterwards.cli.dashboard import dashboard
from afterwards.cli.delete import delete
from afterwards.cli.doctor import doctor
from afterwards.cli.enqueue import enqueue
from afterwards.cli.errors import ExitCode
from afterwards.cli.list import list_tasks
from afterwards.cli.migrate import migrate
from afterwards.cli.move import move
from afterwards.cli.naming import Command
from afterwards.cli.pause import pause
from afterwards.cli.prune import prune
from afterwards.cli.queues import queues
from afterwards.cli.requeue import requeue
from afterwards.cli.resume import resume
from afterwards.cli.schedules import schedules
from afterwards.cli.show import show
from afterwards.cli.stats import stats
from afterwards.cli.tail import tail
from afterwards.cli.worker import worker
from afterwards.cli.workers import workers

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 usage error, 3 the store is not reachable."

commands = typer.Typer(
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help, which fits every terminal and pipe
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_tasks,
    "show": show,
    "requeue": requeue,
    "cancel": cancel,
    "delete": delete,
    "enqueue": enqueue,
    "tail": tail,
    "stats": stats,
    "queues": queues,
    "workers": workers,
    "schedules": schedules,
    "pause": pause,
    "resume": resume,
    "dashboard": dashboard,
    "doctor": doctor,
    "check": check,
    "worker": worker,
    "backup": backup,
    "migrate": migrate,
    "move": move,
    "prune": prune,
}

for name, command in COMMANDS.items():
    commands.command(name, cls=Command, epilog=EXIT_CODES)(command)


def _version(wanted: bool) -> None:
    if wanted:
        ours, fastapi = version("afterwards"), version("fastapi")
        typer.echo(f"afterwards {ours}, FastAPI {fastapi}, Python {platform.python_version()}")
        raise typer.Exit(ExitCode.DONE)


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the versions, and exit.")
]


@commands.callback(invoke_without_command=True)
def _several(context: typer.Context, version: Version = False) -> None:
    """See, steer and run the background tasks of FastAPI applications.

    One store is meant: --url, else AFTERWARDS_URL, else that of the application in this folder (or --app, or just
    `afterwards list main:app`). Data goes to stdout, words go to stderr, and --json prints JSON.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(ExitCode.USAGE)
