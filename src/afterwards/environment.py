"""What the environment variables say; they fill what the application's code leaves open."""

import os

from afterwards.core.errors import InvalidOption


def development() -> bool:
    """Whether ``fastapi dev`` runs the application."""
    return os.environ.get("FASTAPI_ENV") == "development"


def url() -> str | None:
    return os.environ.get("AFTERWARDS_URL") or None


def worker() -> bool | None:
    """``AFTERWARDS_WORKER=off`` keeps the worker out of this process; None when nothing is said."""
    match os.environ.get("AFTERWARDS_WORKER", "").lower():
        case "":
            return None
        case "on" | "1" | "true" | "yes":
            return True
        case "off" | "0" | "false" | "no":
            return False
        case other:
            raise InvalidOption(f"AFTERWARDS_WORKER={other!r}: say on or off")
