"""References to uploaded files in a call's arguments, and the annotations that may hold them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import Annotated, Any, Final, Self, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import custom_error_schema

CHUNK: Final = 256 * 1024
"""Bytes of a file in one stored chunk."""

CHUNKS_AT_ONCE: Final = 4
"""The number of a file's chunks that are in memory at once."""

UNCLAIMED: Final = timedelta(days=1)
"""How long a file is kept if its task was never stored, because its process died or its request failed."""

# FastAPI's class is recognised by its name, so that core does not import it.
_UPLOADS: Final = {("starlette.datastructures", "UploadFile"), ("fastapi.datastructures", "UploadFile")}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """The reference to an uploaded file among a call's arguments. The engine stores the content separately."""

    id: str
    filename: str | None
    headers: tuple[tuple[str, str], ...]  # of its part of the form, including the content type
    size: int | None  # bytes; None if unknown

    @classmethod
    def of(cls, upload: Any, id: str) -> Self:
        return cls(id=id, filename=upload.filename, headers=tuple(upload.headers.items()), size=upload.size)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return custom_error_schema(
            handler(source), custom_error_type="upload", custom_error_message="Input should be an UploadFile"
        )


def is_upload_class(kind: Any) -> bool:
    return isinstance(kind, type) and (kind.__module__, kind.__qualname__) in _UPLOADS


def is_upload(kind: type) -> bool:
    """Return True if a class is ``UploadFile`` or a subclass."""
    return any(map(is_upload_class, kind.__mro__))


def with_stored_files(annotation: Any) -> Any:
    """Return the annotation with ``StoredFile`` instead of ``UploadFile``; the same object if it has none.

    It covers lists, tuples, dictionaries, unions and ``Annotated``, the containers that ``replaced`` covers.
    """
    if is_upload_class(annotation):
        return StoredFile
    if type(annotation).__name__ == "TypeAliasType":  # typing's, or typing_extensions' before Python 3.12
        inner = with_stored_files(annotation.__value__)
        return annotation if inner is annotation.__value__ else inner
    origin, arguments = get_origin(annotation), get_args(annotation)
    changed = tuple(map(with_stored_files, arguments))
    if origin not in _CONTAINERS or all(map(_is, changed, arguments)):
        return annotation
    if origin is Annotated:
        return Annotated[changed]
    return Union[changed] if origin in (Union, UnionType) else origin[changed]  # noqa: UP007  # made at run time


def may_hold_files(stored: Any) -> bool:
    """Return True if a type that ``with_stored_files`` returned can hold a file."""
    return stored is StoredFile or any(map(may_hold_files, get_args(stored)))


def replaced(value: Any, is_one: Callable[[Any], bool], instead: Callable[[Any], Any]) -> Any:
    """Return the value with each file in it replaced."""
    if is_one(value):
        return instead(value)
    match value:
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(replaced(part, is_one, instead) for part in value)
        case dict() if type(value) is dict:
            return {key: replaced(part, is_one, instead) for key, part in value.items()}
    return value


def stored_files(value: Any) -> Iterator[StoredFile]:
    """Yield the file references in a loaded argument."""
    match value:
        case StoredFile():
            yield value
        case list() | tuple():
            for part in value:
                yield from stored_files(part)
        case dict():
            yield from stored_files(list(value.values()))


_CONTAINERS: Final = {Annotated, Union, UnionType, list, tuple, dict, Sequence}


def _is(changed: Any, before: Any) -> bool:
    return changed is before
