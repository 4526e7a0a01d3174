"""What a dependency's return value permits, and which dependencies can decide."""

from dataclasses import dataclass
from typing import Any, Optional

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from fastapi.security import APIKeyHeader, HTTPBasic, OAuth2PasswordBearer
from fastapi.testclient import TestClient

from afterwards import Access, Afterwards, InvalidOption
from afterwards.dashboard.access import refuses_none, visitor


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
        ({"role": "admin"}, Access.ACT, None),
        ({}, Access.NONE, None),
        ("", Access.NONE, ""),
        (0, Access.NONE, "0"),
        (RedirectResponse("/login"), Access.NONE, None),
        (HTTPException(401), Access.NONE, None),
        (Detached(), Access.ACT, "7"),
        ((Access.READ, User()), Access.READ, "anna"),
        (("none", "anna"), Access.NONE, "anna"),
        (("anna", "bea"), Access.ACT, None),
    ],
)
def test_a_return_value_says_what_a_visitor_may_do_and_who_it_is(granted: Any, access: Access, name: str) -> None:
    assert visitor(granted) == (access, name)


async def of_a_call_without_await() -> None: ...


def test_a_call_without_await_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    coroutine = of_a_call_without_await()
    assert visitor(coroutine).access is Access.NONE
    coroutine.close()
    assert "await what has to be awaited" in caplog.text


def somebody_or_nobody() -> User | None:
    return None


def somebody_or_nobody_else() -> Optional[User]:  # noqa: UP045  # as many write it
    return None


class Checker:
    def __call__(self) -> "User | None":
        return None


def raises_for_nobody() -> None: ...


def says_nothing():  # type: ignore[no-untyped-def]
    ...


def test_none_is_nobody_where_a_dependency_returns_somebody_or_none() -> None:
    assert [refuses_none(call) for call in (somebody_or_nobody, somebody_or_nobody_else, Checker())] == [True] * 3
    assert [refuses_none(call) for call in (raises_for_nobody, says_nothing, lambda: None)] == [False] * 3


@pytest.mark.parametrize(("auth", "status"), [(somebody_or_nobody, 403), (raises_for_nobody, 200)])
def test_none_lets_in_where_a_dependency_raises_for_others(auth: Any, status: int) -> None:
    app = FastAPI()
    Afterwards(app, "memory://", dashboard="/afterwards", auth=Depends(auth))
    with TestClient(app) as http:
        assert http.get("/afterwards/api/tasks").status_code == status


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
