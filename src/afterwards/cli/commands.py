"""The typer application with all commands."""

import typer

from afterwards.cli.migrate import migrate
from afterwards.cli.worker import worker

commands = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Run and manage the background tasks of FastAPI applications.",
)
commands.command()(worker)
commands.command()(migrate)


@commands.callback()
def _several() -> None:
    """Run and manage the background tasks of FastAPI applications."""
