"""Who may see the dashboard, and who may act: decided by a dependency that the application gives."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from inspect import isawaitable, isfunction
from typing import Any, NamedTuple, get_args, get_type_hints

from fastapi import Depends, Response, params
from fastapi.security.base import SecurityBase

from afterwards import telemetry
from afterwards.core.errors import InvalidOption
from afterwards.core.text import shown, text_of


class Access(StrEnum):
    """The rights of a visitor of the dashboard."""

    NONE = "none"
    READ = "read"
    ACT = "act"


class Visitor(NamedTuple):
    """Somebody whom the dependency let in."""

    access: Access
    name: str | None  # for the log; None if the dependency returned nothing that names them


def dependency(auth: object) -> params.Depends:
    """Return ``auth`` as a dependency. Raises InvalidOption."""
    found = auth if isinstance(auth, params.Depends) else Depends(auth) if callable(auth) else None
    if found is None or found.dependency is None:
        raise InvalidOption(f"auth={shown(auth)}: give a dependency, as auth=Depends(admin)")
    if isinstance(found.dependency, SecurityBase):
        raise InvalidOption(
            f"auth={shown(auth)}: {type(found.dependency).__name__} only reads what a client sends, and lets anybody "
            "in who sends something: give a function that depends on it and checks what it returns"
        )
    return found


def visitor(granted: object) -> Visitor:
    """Return what a dependency's return value permits, and the name in it.

    - ``Access.READ`` or "read", ``Access.ACT`` or "act", ``Access.NONE`` or "none" say it themselves
    - False and anything empty is none, and so is what a mistake returns: an answer, an error, a call without ``await``
    - anything else was let in, and may act: None, True, a user's name, an object or a mapping with one

    A pair says both: ``Access.READ, user``.
    """
    if isinstance(granted, tuple) and len(granted) == 2 and (access := _level(granted[0])) is not None:
        return Visitor(access, _name(granted[1]))
    if (access := _level(granted)) is not None:
        return Visitor(access, None)
    return Visitor(Access.NONE if _is_none(granted) else Access.ACT, _name(granted))


def refuses_none(call: Callable[..., Any] | None) -> bool:
    """Return True if a dependency says by its annotation that it returns somebody or None: then None is nobody."""
    try:
        returned = get_type_hints(call if isfunction(call) else type(call).__call__).get("return")
    except BaseException:  # the user's annotations
        return False
    return type(None) in get_args(returned)


def _is_none(granted: object) -> bool:
    if isinstance(granted, Response | BaseException) or isawaitable(granted):
        telemetry.not_a_visitor(type(granted).__name__)
        return True
    return isinstance(granted, str | int | Mapping | Sequence) and not granted


def _level(said: object) -> Access | None:
    if isinstance(said, bool):
        return Access.ACT if said else Access.NONE
    if isinstance(said, str) and said.lower() in set(Access):
        return Access(said.lower())
    return None


NAMES = ("username", "name", "email", "sub", "id")
"""The attributes or keys that name a user, the best first."""


def _name(user: object) -> str | None:
    if user is None:
        return None
    if isinstance(user, str | int):
        return text_of(user)
    for name in NAMES:
        value = user.get(name) if isinstance(user, Mapping) else _attribute(user, name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return text_of(value)
    return None


def _attribute(user: object, name: str) -> Any:
    try:
        return getattr(user, name, None)
    except BaseException:  # the user's code: an ORM's object may raise when its session is closed
        return None
