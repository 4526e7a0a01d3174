"""Uploaded files among a call's arguments: what stands for them in JSON, and where they may stand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import Annotated, Any, Final, Self, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import custom_error_schema

CHUNK: Final = 256 * 1024
"""Bytes of a file that are stored in one piece."""

CHUNKS_AT_ONCE: Final = 4
"""How many pieces of a file are in memory at once."""

UNCLAIMED: Final = timedelta(days=1)
"""How long a file stays whose task was never stored: its process has died in between, or its request has failed."""

# FastAPI's class is known by its name, so that nothing need be imported for it.
_UPLOADS: Final = {("starlette.datastructures", "UploadFile"), ("fastapi.datastructures", "UploadFile")}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Stands among the arguments for an uploaded file, whose content is kept beside its task."""

    id: str
    filename: str | None
    headers: tuple[tuple[str, str], ...]  # of its part of the form, the content type among them
    size: int | None  # bytes; None where whoever made the upload did not say

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
    """Whether the objects of a class are uploads."""
    return any(map(is_upload_class, kind.__mro__))


def with_stored_files(annotation: Any) -> Any:
    """The annotation with what stands for a file in the place of ``UploadFile``; the same object where there is none.

    Lists, tuples, dictionaries, unions and ``Annotated`` are looked into, for ``replaced`` looks into their values.
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
    """Whether a type that ``with_stored_files`` gave has a place for a file."""
    return stored is StoredFile or any(map(may_hold_files, get_args(stored)))


def replaced(value: Any, is_one: Callable[[Any], bool], instead: Callable[[Any], Any]) -> Any:
    """The value with something else in the place of the files in it."""
    if is_one(value):
        return instead(value)
    match value:
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(replaced(part, is_one, instead) for part in value)
        case dict() if type(value) is dict:
            return {key: replaced(part, is_one, instead) for key, part in value.items()}
    return value


def stored_files(value: Any) -> Iterator[StoredFile]:
    """What stands for files in an argument that was loaded."""
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
