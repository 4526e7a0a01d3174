"""The idempotency keys of a request's tasks."""

from collections.abc import Sequence

from afterwards.core.errors import InvalidOption, RefusedValue
from afterwards.core.keys import as_key


def task_key(key: str, number: int) -> str:
    """Return the key of a request's first task, ``key``, or of a later one, ``key:2``. Raises InvalidKey."""
    return as_key(key if number == 1 else f"{key}:{number}")


def own_key(key: object) -> str | None:
    """Return the key that a handler gives; None for none. Raises InvalidOption, RefusedValue for an empty text."""
    if not isinstance(key, str | bool):
        raise InvalidOption(
            f"configure(idempotency_key={key!r}): give the key as text, or True for the request's header"
        )
    if key == "":
        raise RefusedValue("idempotency_key", "='': give text, or True for the request's header")
    return key if isinstance(key, str) else None


def key_from_header(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the ``Idempotency-Key`` of a request, without the quotation marks of RFC 9651, 3.3.3."""
    found = next((value for name, value in headers if name == b"idempotency-key"), b"")
    return found.decode("latin-1").strip().strip('"') or None
