"""The path at which an application's dashboard begins."""

import re

from afterwards.core.errors import InvalidOption
from afterwards.core.text import shown

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def checked(path: object, auth: object) -> str | None:
    """Return the path, None for no dashboard. Raises InvalidOption."""
    if path is None:
        if auth is not None:
            raise InvalidOption("auth is who may see the dashboard: give its path, too, as dashboard='/afterwards'")
        return None
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise InvalidOption(f"dashboard={shown(path)}: give the path at which it begins, as dashboard='/afterwards'")
    return path
