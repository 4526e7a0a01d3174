"""How commands fail: one line on stderr, and an exit code that does not change between versions."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command returns to the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # a wrong option, or an application that cannot be imported: starting again does not help
    UNREACHABLE = 3  # the store cannot be opened now


class CommandError(Exception):
    """Ends a command with one line on stderr."""

    code = ExitCode.FAILED


class UsageError(CommandError):
    """The command was called wrongly."""

    code = ExitCode.USAGE


class StoreUnreachable(CommandError):
    """The store cannot be opened."""

    code = ExitCode.UNREACHABLE
