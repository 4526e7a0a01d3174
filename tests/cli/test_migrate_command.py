"""The command `afterwards migrate`."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cli.commands import afterwards
from servers.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.xdist_group("postgres_sessions")


def migrate(*arguments: str, url: str | None = None) -> tuple[int, str, str]:
    done = afterwards(Path.cwd(), "migrate", *arguments, environment={"AFTERWARDS_URL": url} if url else {})
    assert PASSWORD not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    yield f"{postgres_url}?schema=jobs"


def tables(url: str) -> int:
    with psycopg.connect(url.partition("?")[0]) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'jobs'").fetchone()
        assert row
        return int(row[0])


def test_it_makes_the_tables_and_says_when_there_is_nothing_to_do(url: str) -> None:
    code, said, _ = migrate("--check", "--json", url=url)
    assert code == 1 and json.loads(said)["pending"] > 10
    code, said, _ = migrate("--check", url=url)
    assert (code, tables(url)) == (1, 0)
    assert "statements not run yet: run `afterwards migrate`" in said
    code, said, _ = migrate("--url", url)
    assert (code, "was migrated" in said) == (0, True)
    assert tables(url) > 10
    for arguments in ((), ("--check",)):
        code, said, _ = migrate(*arguments, url=url)
        assert (code, "is up to date" in said) == (0, True)
    assert migrate("--sql", url=url) == (0, "", "")
    assert json.loads(migrate("--json", url=url)[1]) == {"migrated": False}
    assert migrate("--sql", "--json", url=url)[0] == 2


def test_what_it_prints_makes_the_same_tables(url: str) -> None:
    code, script, _ = migrate("--sql", url=url)
    assert (code, tables(url)) == (0, 0)
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        connection.execute(script)  # type: ignore[call-overload]
    assert migrate("--check", url=url)[0] == 0


def test_what_cannot_be_migrated_says_why_with_an_exit_code(postgres: PostgresServer) -> None:
    assert migrate("--sql", "--check", url=postgres.url())[0] == 2
    code, _, said = migrate("--url", "sqlite:///tasks.db")
    assert (code, "needs no migration by hand" in said) == (2, True)
    code, _, said = migrate("--url", "postgresql://me@127.0.0.1:1/db")
    assert (code, "cannot be reached" in said) == (3, True)
    code, _, said = migrate("--url", postgres.url("nowhere"))
    assert (code, "no such database" in said) == (3, True)
    assert migrate("--url", "mysql://host/db")[0] == 2
