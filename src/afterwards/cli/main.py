"""The entry point of the ``afterwards`` command."""

import sys

from afterwards.cli.errors import CommandError, ExitCode

MISSING = "the command line needs typer: pip install 'afterwards[cli]'"


def main() -> None:
    """Run the command named in ``sys.argv``, and exit with its code."""
    sys.exit(run())


def run() -> int:
    """Run a command. Returns its exit code."""
    try:
        from afterwards.cli.commands import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"typer", "rich"}:
            print(f"afterwards: {MISSING}", file=sys.stderr)
            return ExitCode.USAGE
        raise
    try:
        return int(commands(prog_name="afterwards", standalone_mode=True) or 0)
    except CommandError as error:
        print(f"afterwards: {error}", file=sys.stderr)
        return error.code
