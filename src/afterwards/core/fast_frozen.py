"""Fast construction of frozen dataclass objects, for code that makes very many of them."""

from dataclasses import field, fields, make_dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


def draft_of(cls: type[T]) -> type[T]:
    """Return a mutable class with the fields and slots of a frozen dataclass.

    Its objects are made in a third of the time. A frozen dataclass sets each field by a function call; a draft sets
    them directly, until ``frozen`` changes its class.
    """
    known: Any = cls
    members = [(one.name, one.type, field(default=one.default)) for one in fields(known)]
    return cast(type[T], make_dataclass(f"{cls.__name__}Draft", members, slots=True, kw_only=True))


def blank(draft: type[T]) -> Any:
    """Return a draft without any field set, not even defaults. The caller must set every field.

    Where most fields are known, setting them takes a sixth of the time of a constructor call.
    """
    return object.__new__(draft)


def frozen(draft: T, cls: type[T]) -> T:
    """Turn the draft itself into an object of the frozen class, and return it."""
    draft.__class__ = cls
    return draft
