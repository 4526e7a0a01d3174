"""Say what the server's settings take from a commit. They are the application's choice, but not a silent one."""

from logging import WARNING

from afterwards.telemetry import once

COMMIT_LEVEL = "current_setting('synchronous_commit')"


def say_what_is_lost_with(level: str) -> None:
    """Log once that a commit may return before the server has written it to its disk."""
    if level == "off":
        once(
            "synchronous_commit = off",
            WARNING,
            "afterwards: synchronous_commit is off where PostgreSQL commits tasks: a crash of the server may lose "
            "the last half second of what was acknowledged. Set it to on for the server, the database, the user or "
            "the session that has it off",
        )
