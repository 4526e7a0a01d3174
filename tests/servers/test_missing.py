"""Tests without their server are skipped, but not in continuous integration."""

import pytest

from servers import postgres
from servers.fixtures import private_postgres


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise postgres.NotInstalled("no PostgreSQL server is installed")

    monkeypatch.setattr(postgres, "programs", none)


def test_they_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no PostgreSQL server is installed"):
        private_postgres()


def test_they_fail_in_continuous_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no PostgreSQL server is installed.*CI is set"):
        private_postgres()
