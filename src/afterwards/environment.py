"""The environment of the process: variables, which are defaults for options, and the version of this package."""

import os
from functools import cache
from importlib import metadata

from afterwards.core.errors import InvalidOption


def development() -> bool:
    """Return True under ``fastapi dev``."""
    return os.environ.get("FASTAPI_ENV") == "development"


def url() -> str | None:
    """Return ``AFTERWARDS_URL``, None if it is unset or empty."""
    return os.environ.get("AFTERWARDS_URL") or None


def worker() -> bool | None:
    """Return what ``AFTERWARDS_WORKER`` says, on or off; None if it is unset. Raises InvalidOption."""
    match os.environ.get("AFTERWARDS_WORKER", "").lower():
        case "":
            return None
        case "on" | "1" | "true" | "yes":
            return True
        case "off" | "0" | "false" | "no":
            return False
        case other:
            raise InvalidOption(f"AFTERWARDS_WORKER={other!r}: set it to on or off")


def name() -> str | None:
    """Return what this installation is called, as "staging": ``AFTERWARDS_ENVIRONMENT``, else ``FASTAPI_ENV``."""
    return os.environ.get("AFTERWARDS_ENVIRONMENT") or os.environ.get("FASTAPI_ENV") or None


@cache
def version() -> str:
    """Return the version of this package, empty if it is not installed as one."""
    try:
        return metadata.version("afterwards")
    except metadata.PackageNotFoundError:
        return ""
