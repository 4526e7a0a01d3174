"""The URL of an engine: each mistake has one error, which says what to write."""

import pytest

from afterwards.core.errors import UnsupportedEngine
from afterwards.core.urls import parse, unsupported, without_password, without_passwords


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///tasks.db", "tasks.db"),
        ("sqlite:////data/tasks.db", "/data/tasks.db"),
        ("sqlite+aiosqlite:///tasks.db", "tasks.db"),
        ("SQLite:///Tasks.db", "Tasks.db"),
        ("sqlite:///a%20b%3F.db", "a b?.db"),
        ("sqlite:///a#b.db", "a#b.db"),
        ("sqlite:///a b.db\n", "a b.db"),
        ("sqlite:///C:/data/tasks.db", "C:/data/tasks.db"),
        ("sqlite:///a@b:c.db", "a@b:c.db"),
    ],
)
def test_the_file_of_a_url_is_read_as_it_is_written(url: str, file: str) -> None:
    assert parse(url).file == file


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("sqlite:tasks.db", r"too few slashes: give sqlite:///tasks\.db \(relative\)"),
        ("sqlite:/data/x.db", r"too few slashes: give sqlite:////data/x\.db \(absolute\)"),
        ("sqlite://tasks.db", r"too few slashes, and names a host: give sqlite:///tasks\.db \(relative\)"),
        ("sqlite://data/tasks.db", r"give sqlite:///data/tasks\.db \(relative\)"),
        ("sqlite:///x.db?timeout=5", r"has parameters.*leave out '\?timeout=5'"),
        ("sqlite:///x.db?", r"has parameters"),
        ("sqlite:", "too few slashes"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite:///:memory:", "names no file.*memory://"),
        ("sqlite://:memory:", "names no file.*memory://"),
        ("sqlite:///data/", "names a folder"),
        ("sqlite:///a%00b", "NUL"),
        ("sqlite:///a\x00b", "unprintable character"),
        ("tasks.db", r"is not a URL: give sqlite:///tasks\.db \(relative\)"),
        ("/data/tasks.db", r"is not a URL: give sqlite:////data/tasks\.db \(absolute\)"),
        (r"C:\data\tasks.db", "is not a URL"),
        ("", "is not a URL"),
        ("memory", "is not a URL"),
        ("memory:", "give memory://"),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(url: str, error: str) -> None:
    with pytest.raises(UnsupportedEngine, match=error) as raised:
        parse(url)
    assert str(raised.value).count("give ") <= 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/db",
        "postgresql+asyncpg://user:secret@host:not-a-port/db",
        "postgresql://user:se/c@secret@host/db",
        "redis://:secret@host",
        "postgresql://host/db?user=me&password=secret",
        "redis://user:secret@[::1]:6379/0",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    assert "secret" not in parse(url).shown
    assert "***" in parse(url).shown
    assert parse(url).text == url


def test_what_has_no_password_is_shown_as_it_is() -> None:
    assert without_password("postgresql://user@host:5432/db") == "postgresql://user@host:5432/db"


def test_a_kind_that_no_engine_is_for_is_named_without_its_password() -> None:
    error = unsupported(parse("mysql://ada:secret@db/tasks"))
    assert 'no engine for "mysql"' in str(error)
    assert "secret" not in str(error)


def test_passwords_are_hidden_in_a_message_whose_other_words_stay() -> None:
    error = unsupported(parse("mysql://ada:secret@db:1/tasks"))
    assert without_passwords(str(error)).startswith(
        "there is no engine for \"mysql\" in 'mysql://ada:***@db:1/tasks': give sqlite"
    )
    said = "postgresql://ada:se/c@ret@db:5432/x and http://host:80/y?token=abc&a=b are down: ask ada@example.org"
    assert (
        without_passwords(said)
        == "postgresql://ada:***@db:5432/x and http://host:80/y?token=***&a=b are down: ask ada@example.org"
    )
