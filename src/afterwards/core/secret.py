"""``Secret``, the mark of a secret parameter, and the search for secrets in the types of a function."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from afterwards.core.redaction import RETURN, says_secret
from afterwards.core.serialization.schema import MASKS

_MARK: Final = "afterwards_secret"


class Secret:
    """Marks a value that is never shown: ``key: Annotated[str, Secret()]``, also within another type.

    Pages, records as JSON, logs and spans hide the value, and its text in messages and tracebacks. It is stored as it
    is. Pydantic's ``SecretStr`` and ``SecretBytes`` are hidden, too, and so are parameters and keys whose name says it:
    password, secret, token, api_key, private_key, authorization, credentials, cookie.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret()"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if source is cls:
            raise TypeError("Secret marks a type and is none: write Annotated[str, Secret()]")
        marked: Any = handler(source)
        return {"type": "chain", "steps": [marked], "metadata": {_MARK: True}}


def secrets_of(name: str, schema: Any) -> tuple[str, ...]:
    """Return the secrets within a parameter, or "return": itself, else the secret keys in it, as "user.password"."""
    if name != RETURN and says_secret(name):
        return (name,)
    keys = {*_secret_keys(schema, None)}
    return (name,) if None in keys else tuple(sorted(f"{name}.{key}" for key in keys))


def _secret_keys(node: Any, key: str | None) -> Iterator[str | None]:
    """Yield the name of the innermost field around each secret in a schema; None for a secret outside of any field."""
    if isinstance(node, list | tuple):
        for part in node:
            yield from _secret_keys(part, key)
    if not isinstance(node, dict):
        return
    if _is_secret(node):
        yield key
    fields = dict(_fields(node))
    for name, field in fields.items():
        if says_secret(name):
            yield name
        yield from _secret_keys(field, name)
    for name, part in node.items():
        if name not in _NO_SCHEMAS and not (fields and name == "fields"):
            yield from _secret_keys(part, key)


def _fields(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a model, a TypedDict or a dataclass."""
    match node:
        case {"type": "model-fields" | "typed-dict", "fields": fields}:
            yield from fields.items()
        case {"type": "dataclass-args", "fields": fields}:
            yield from ((field["name"], field) for field in fields)


def _is_secret(node: dict[str, Any]) -> bool:
    serialization, metadata = node.get("serialization"), node.get("metadata")
    return (isinstance(serialization, dict) and serialization.get("function") in MASKS) or (
        isinstance(metadata, dict) and _MARK in metadata
    )


_NO_SCHEMAS: Final = frozenset({"cls", "default", "expected", "members", "metadata", "serialization"})
