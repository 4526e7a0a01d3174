"""All commands, put together."""

import typer

from afterwards.cli.worker import worker

commands = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help="Run and steer afterwards' tasks."
)
commands.command()(worker)


@commands.callback()
def _several() -> None:
    """Run and steer the tasks of FastAPI applications."""
