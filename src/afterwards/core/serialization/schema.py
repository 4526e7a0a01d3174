"""Change pydantic's schema so that more values survive a round trip than in JSON for other readers."""

from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

from pydantic import Secret, SecretStr
from pydantic_core import CoreConfig

from afterwards.core.serialization.compare import SCALARS
from afterwards.core.serialization.explain import not_plain, schema_of
from afterwards.core.serialization.zones import ZONED, choices, with_zone

# How values are written where a type allows several forms. It overrides the configuration of models.
WRITTEN: Final = CoreConfig(
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="strings",
    ser_json_temporal="iso8601",
    hide_input_in_errors=True,  # arguments may be secret, and errors are logged
)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of arguments that rejects unknown ones and does not fill in defaults."""
    if schema["type"] == "definitions":
        return {**schema, "schema": closed(schema["schema"])}
    fields = schema["fields"].items()
    arguments = {name: {**field, "schema": _without_default(field["schema"])} for name, field in fields}
    return {**schema, "fields": arguments, "extra_behavior": "forbid"}


def _without_default(schema: dict[str, Any]) -> Any:
    return schema["schema"] if schema["type"] == "default" else schema


def stored_schema(node: Any) -> Any:
    """Return the changed schema."""
    match node:
        case {"type": str(kind)}:
            return _changed(kind, node)
        case dict():
            return {key: stored_schema(value) for key, value in node.items()}
        case list() | tuple():
            return type(node)(map(stored_schema, node))
    return node


def _changed(kind: str, node: dict[str, Any]) -> dict[str, Any]:
    _refuse_live(node.get("cls"))
    changed = {
        key: value if key in _OPAQUE else stored_schema(value) for key, value in node.items() if key not in _HIDING
    }
    if "config" in node:
        changed["config"] = {**node["config"], **WRITTEN}
    if kind == "any":
        changed.setdefault("serialization", {"type": "function-plain", "function": _plain})
    if kind == "generator":  # annotated as Iterable: a list can be read again
        changed["type"] = "list"
    if node.get("function") in MASKS:
        changed |= {"function": revealed, "info_arg": False}
    if kind == "union":
        changed["choices"] = choices(changed["choices"])
    return with_zone(changed) if kind in ZONED else changed


_OPAQUE: Final = frozenset({"cls", "default", "expected", "members", "metadata", "return_schema", "computed_fields"})
_HIDING: Final = frozenset({"serialization_exclude", "serialization_exclude_if"})  # `exclude=True` is for responses


def _refuse_live(cls: Any) -> None:
    """Raise TypeError for a class that pydantic accepts, and whose objects are not only their values."""
    if hasattr(cls, "_sa_class_manager"):
        raise TypeError(f"{cls.__name__} is a database object")
    if hasattr(cls, "mark_not_stored"):
        raise TypeError(f"{cls.__name__} is written in answers only")


def _plain(value: Any) -> Any:
    """Return a value annotated as Any unchanged. Raises ValueError if JSON alone would change it."""
    try:
        if _is_plain(value):
            return value
        odd = _first_odd(value)
    except RecursionError:
        raise ValueError("it contains itself or is nested too deeply") from None
    raise ValueError(not_plain(odd))


def _is_plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_plain, value))
    if type(value) is dict:
        return not _is_odd(value) and all(map(_is_plain, value.values()))
    return not _is_odd(value)


def _first_odd(value: Any) -> Any:
    """Return the first part that JSON cannot hold, at any depth, of a value that is not plain."""
    while not _is_odd(value):
        parts = value.values() if type(value) is dict else value
        value = next(part for part in parts if not _is_plain(part))
    return value


def _is_odd(value: Any) -> bool:
    """Return True if JSON cannot hold the value itself, whatever its parts are."""
    kind = type(value)
    if kind is dict:
        return any(type(key) is not str for key in value)
    return not isfinite(value) if kind is float else kind not in _PLAIN


def revealed(secret: Any) -> Any:
    return secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret


def _serializers(node: Any) -> Iterator[Any]:
    """Yield the serializer functions in a schema."""
    if isinstance(node, dict):
        if "serialization" in node:
            yield node["serialization"].get("function")
        for part in node.values():
            yield from _serializers(part)


_PLAIN: Final = SCALARS | {list, dict}
# Pydantic's serializers of secrets, which write asterisks.
MASKS: Final = (*_serializers(schema_of(SecretStr)), *_serializers(schema_of(Secret[int])))
