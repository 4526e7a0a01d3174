"""Errors of commands: each is one line on stderr and an exit code that is stable across versions."""

from enum import IntEnum

from afterwards.core.errors import EngineError, EngineUnavailable, UnsupportedEngine


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # an invalid option, or an application that cannot be imported: a restart does not help
    UNREACHABLE = 3  # the store is away or refuses, such as for a wrong password
    REFUSED = 4  # only from a process to its supervisor: the store refuses, so a new process would end in the same way
    INTERRUPTED = 130  # by Ctrl-C, as a shell has it


class CommandError(Exception):
    """Ends a command with one line on stderr."""

    code = ExitCode.FAILED


class UsageError(CommandError):
    """The command line or the application is wrong: a restart does not help."""

    code = ExitCode.USAGE


class NoApplication(UsageError):
    """No application is named, and none is found."""


class StoreUnreachable(CommandError):
    """The store is away: a restart may help."""

    code = ExitCode.UNREACHABLE


class StoreRefused(CommandError):
    """The store refuses: a restart does not help."""

    code = ExitCode.UNREACHABLE


def store_error(error: EngineError, said: str) -> CommandError:
    """Return the error of a command for an engine's error, whose class says if a restart may help."""
    match error:
        case UnsupportedEngine():
            return UsageError(said)
        case EngineUnavailable():
            return StoreUnreachable(said)
        case _:
            return StoreRefused(said)
