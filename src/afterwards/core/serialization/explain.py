"""Texts that explain why a value or an annotation cannot be stored, and what to do instead."""

from dataclasses import is_dataclass
from functools import partial
from inspect import formatannotation
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from afterwards.core.serialization.compare import SCALARS, equal, type_name, walk
from afterwards.core.serialization.files import is_upload

UNUSABLE: Final = (PydanticUserError, SchemaError, TypeError, NameError, AttributeError, SyntaxError)
"""Errors that pydantic raises for an annotation that it cannot use."""

CHANGED: Final = "it would not come back equal"
_BY_ID: Final = "pass its id and load it in the task"
_CALLABLES: Final = (FunctionType, BuiltinFunctionType, MethodType, partial, type)
# Live objects are recognised by their attributes, so that no library needs to be imported for it.
_LIVE: Final = (
    (("_sa_class_manager",), _BY_ID),
    (("_meta", "pk"), _BY_ID),
    (("mark_not_stored",), "pass the handle's `.id`, and let the task ask with `await tasks.get(id)`"),
    (("headers", "cookies"), "a request is over when the task runs, pass the values that the task needs"),
    (("read",), "an open file is closed when the task runs, pass its path, or its content as bytes"),
    (("__next__",), "it can be read only once, pass a list of what it gives"),
    (("__anext__",), "it can be read only once, pass a list of what it gives"),
    (("__await__",), "await it first, and pass what it gives"),
    (("execute",), "it is connected to this process, let the task open its own, as a dependency"),
    (("cursor",), "it is connected to this process, let the task open its own, as a dependency"),
)


def schema_of(annotation: Any) -> dict[str, Any]:
    # Unpacked: pydantic returns a stand-in while a model has an unresolved name, and reading it raises the error.
    return {**TypeAdapter(annotation).core_schema}


def advice(kind: type) -> str | None:
    """Return what to pass instead of a live object, None for data."""
    if issubclass(kind, _CALLABLES):
        return "code cannot be stored, pass values, and let the task choose what to call"
    if is_upload(kind):
        return "an uploaded file is stored only for a parameter that is annotated `UploadFile`, or a list of them"
    if (issubclass(kind, BaseModel) or is_dataclass(kind)) and not hasattr(kind, "_sa_class_manager"):
        return None
    return next((advice for names, advice in _LIVE if all(hasattr(kind, name) for name in names)), None)


def remedy(value: Any) -> str:
    """Return what to do about a type that pydantic does not know, an empty text for a known one."""
    try:
        schema_of(type(value))
    except UNUSABLE:
        return f"; {_of_numbers(type(value)) or f'{_BY_ID}, or pass a model or dataclass of its values'}"
    return ""


def _of_numbers(kind: type) -> str | None:
    """Return how to pass a scalar or array of NumPy, or of a compatible library; None for other types."""
    if not (hasattr(kind, "item") and hasattr(kind, "tolist")):
        return None
    if hasattr(kind, "__setitem__"):
        return "pass its `.tolist()`, a list of Python's own numbers"
    return "pass its `.item()`, Python's own value"


def not_plain(part: Any) -> str:
    """Return why JSON without an annotation changes a part of a value, and what to do."""
    changed = f"JSON alone does not give {type_name(part)} back as it is"
    if type(part) is float:
        return f"{changed}; annotate it ({part!r} is not a number in JSON)"
    if type(part) is dict:
        key = next(key for key in part if type(key) is not str)
        return f"{changed}; annotate it ({_named(key)} is not text, and JSON allows only text as keys)"
    return changed + (remedy(part) or "; annotate it")


def _named(key: Any) -> str:
    """Return a text for a key: scalars as they are, other keys only by type, because they may be secret."""
    return f"the key {key!r}" if type(key) in SCALARS else f"a key of type {type_name(key)}"


def unusable(annotation: Any, error: Exception) -> str:
    """Return why values of an annotation cannot be stored, and what to do."""
    kind = get_origin(annotation) or annotation
    if isinstance(error, NameError):
        remedy = "annotate with a name that the module has when it runs, not for type checkers only"
    else:
        known = isinstance(kind, type) and (advice(kind) or _of_numbers(kind))
        remedy = known or f"{_BY_ID}, or let the task get it as a dependency"
    return f"{formatannotation(annotation)} cannot be stored as JSON: {remedy} ({str(error).partition('. Set ')[0]})"


def came_back(given: Any, loaded: Any) -> str:
    """Return how a loaded value differs from the one that was given."""
    for before, after in zip(walk(given), walk(loaded), strict=False):  # one may be longer
        if type(before) is not type(after) and not equal(before, after):
            subject = "it" if before is given else f"{type_name(before)} in it"
            return (
                f"{subject} would come back as {type_name(after)}; pass that, or let the annotation name its type alone"
            )
        if isinstance(before, dict) and isinstance(after, dict):
            for key, read in zip(before, after, strict=False):
                if type(key) is not type(read):
                    return f"{CHANGED}: {_named(key)} would come back as {type_name(read)}; annotate the keys' type"
    return CHANGED


def first_fault(error: Exception) -> str:
    """Return pydantic's first error, without the value."""
    if not isinstance(error, ValidationError):
        return str(error).rsplit("Error: ", 1)[-1]
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return ": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"]]))
