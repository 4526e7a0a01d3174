"""Without ``auth`` the dashboard is closed, except to a developer's own browser."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards


def asked(
    monkeypatch: pytest.MonkeyPatch,
    *,
    env: str | None = "development",
    client: str = "127.0.0.1",
    host: str = "localhost:8000",
    **headers: str,
) -> int:
    """The status of a request's answer."""
    if env is not None:
        monkeypatch.setenv("FASTAPI_ENV", env)
    app = FastAPI()
    Afterwards(app, "memory://", dashboard="/afterwards")
    with TestClient(app, client=(client, 4711)) as http:
        sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return http.get("/afterwards/api/tasks", headers=sent).status_code


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1"])
@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "api.localhost:8000"])
def test_a_developers_own_browser_may_see_it(monkeypatch: pytest.MonkeyPatch, client: str, host: str) -> None:
    assert asked(monkeypatch, client=client, host=host) == 200


@pytest.mark.parametrize("env", [None, "production", ""])
def test_elsewhere_than_in_development_it_is_closed(monkeypatch: pytest.MonkeyPatch, env: str | None) -> None:
    monkeypatch.delenv("FASTAPI_ENV", raising=False)
    assert asked(monkeypatch, env=env) == 403


@pytest.mark.parametrize("client", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "testclient", ""])
def test_it_is_closed_to_other_machines(monkeypatch: pytest.MonkeyPatch, client: str) -> None:
    assert asked(monkeypatch, client=client) == 403


@pytest.mark.parametrize("name", ["forwarded", "via", "x_forwarded_for", "x_forwarded_host", "x_real_ip"])
def test_it_is_closed_behind_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The proxy may be on this machine, and its client anywhere."""
    assert asked(monkeypatch, **{name: "127.0.0.1"}) == 403


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.7:8000", "[::1", ""])
def test_it_is_closed_to_another_name_of_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A site may let its own name point to this machine, and then reads what this machine answers."""
    assert asked(monkeypatch, host=host) == 403


def test_it_says_which_line_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    Afterwards(app, "memory://", dashboard="/afterwards")
    with TestClient(app) as http:
        answers = [http.get("/afterwards/api/tasks") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [403] * 3
    assert "auth=Depends(admin)" in answers[0].json()["detail"]
    [said] = [record.getMessage() for record in caplog.records if "dashboard" in record.getMessage()]
    assert 'Afterwards(app, dashboard="/afterwards", auth=Depends(admin))' in said
