"""What a dependency's return value permits, and which dependencies can decide."""

from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.security import APIKeyHeader, HTTPBasic, OAuth2PasswordBearer

from afterwards import Access, Afterwards, InvalidOption
from afterwards.dashboard.access import visitor


@dataclass
class User:
    username: str = "anna"
    id: int = 7


class Detached:
    @property
    def username(self) -> str:
        raise RuntimeError("its session is closed")

    id = 7


@pytest.mark.parametrize(
    ("granted", "access", "name"),
    [
        (Access.READ, Access.READ, None),
        ("read", Access.READ, None),
        ("Read", Access.READ, None),
        ("act", Access.ACT, None),
        ("none", Access.NONE, None),
        (Access.NONE, Access.NONE, None),
        (False, Access.NONE, None),
        (True, Access.ACT, None),
        (None, Access.ACT, None),
        ("anna", Access.ACT, "anna"),
        (User(), Access.ACT, "anna"),
        ({"sub": "anna"}, Access.ACT, "anna"),
        ({}, Access.ACT, None),
        (Detached(), Access.ACT, "7"),
        ((Access.READ, User()), Access.READ, "anna"),
        (("none", "anna"), Access.NONE, "anna"),
        (("anna", "bea"), Access.ACT, None),
    ],
)
def test_a_return_value_says_what_a_visitor_may_do_and_who_it_is(granted: Any, access: Access, name: str) -> None:
    assert visitor(granted) == (access, name)


@pytest.mark.parametrize("auth", [7, "admin", Depends()])
def test_what_is_no_dependency_is_refused(auth: Any) -> None:
    with pytest.raises(InvalidOption, match=r"give a dependency, as auth=Depends\(admin\)"):
        Afterwards(FastAPI(), dashboard="/afterwards", auth=auth)


@pytest.mark.parametrize("scheme", [HTTPBasic(), APIKeyHeader(name="X-Key"), OAuth2PasswordBearer("/token")])
def test_a_scheme_that_checks_nothing_is_refused(scheme: Any) -> None:
    """It returns what a client has sent: everybody would be let in."""
    with pytest.raises(InvalidOption, match="lets anybody in who sends something"):
        Afterwards(FastAPI(), dashboard="/afterwards", auth=Depends(scheme))


@pytest.mark.parametrize("path", ["afterwards", "/", "/afterwards/", "/{tenant}", "", 7, True])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InvalidOption, match="give the path at which it begins"):
        Afterwards(FastAPI(), dashboard=path, auth=Depends(dict))


def test_auth_without_a_dashboard_is_refused() -> None:
    with pytest.raises(InvalidOption, match="give its path, too"):
        Afterwards(FastAPI(), auth=Depends(dict))
