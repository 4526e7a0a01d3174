"""The pattern for names of tasks, queues and keys."""

import re

from afterwards.core.errors import InvalidOption, RefusedValue
from afterwards.core.text import shown

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def check_name(kind: str, name: str) -> str:
    """Return the name unchanged. Raises InvalidOption if it does not match the pattern."""
    problem = f" {shown(name)}: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -"
    if not isinstance(name, str):
        raise InvalidOption(f"{kind}{problem}")
    if not NAME.fullmatch(name):
        raise RefusedValue(kind, problem)
    return name
