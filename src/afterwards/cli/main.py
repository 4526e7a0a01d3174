"""The entry point of the ``afterwards`` command."""

import os
import sys
import traceback
from contextlib import suppress
from typing import cast

from afterwards.cli.errors import CommandError, ExitCode
from afterwards.core.urls import without_passwords

MISSING = "the command line needs typer: pip install 'afterwards[cli]'"


def main() -> None:
    """Run the command named in ``sys.argv``, and exit with its code."""
    code = run()
    _close_outputs()
    sys.exit(code)


def run() -> int:
    """Run a command. Returns its exit code. Nothing that it prints holds a password or a traceback."""
    try:
        import typer

        from afterwards.cli.commands import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"typer", "rich"}:
            _complain(MISSING)
            return ExitCode.USAGE
        raise
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a test's stream
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # typeshed: a TextIO may not have it
    refused = cast(type[Exception], typer.BadParameter.__base__)  # UsageError, which typer has no public name for
    try:
        return int(commands(prog_name="afterwards", standalone_mode=False) or 0)
    except CommandError as error:
        _complain(str(error))
        return error.code
    except refused as error:
        return _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except Exception as error:  # the outermost edge of a program: a traceback could show a password
        _complain(_unexpected(error))
        return ExitCode.FAILED


def _misused(error: BaseException) -> int:
    """Say what is wrong with the command line, in one line, and where the help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "afterwards"
    said = " ".join(error.format_message().split())  # type: ignore[attr-defined]  # every one of typer's has it
    _complain(f"{said.rstrip('.?')}{'?' if said.endswith('?') else '.'} `{command} --help` lists what there is")
    return ExitCode.USAGE


def _unexpected(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}" if frames else "unknown place"
    return (
        f"unexpected error: {type(error).__name__}: {' '.join(str(error).split())} ({place}): please report this line"
    )


def _complain(said: str) -> None:
    if said:
        with suppress(OSError):
            print(f"afterwards: {without_passwords(said)}", file=sys.stderr, flush=True)


def _close_outputs() -> None:
    """Write what is left. If nobody reads it any more, the interpreter must not try again at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
