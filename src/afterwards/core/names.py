"""The pattern for names of tasks, queues and keys."""

import re

from afterwards.core.errors import InvalidOption

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def check_name(kind: str, name: str) -> str:
    """Return the name unchanged. Raises InvalidOption if it does not match the pattern."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidOption(f"{kind} {name!r}: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -")
    return name
