"""Errors of commands: each is one line on stderr and an exit code that is stable across versions."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # an invalid option, or an application that cannot be imported: a restart does not help
    UNREACHABLE = 3  # the store cannot be opened now
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
    """The store cannot be opened now: a restart may help."""

    code = ExitCode.UNREACHABLE
