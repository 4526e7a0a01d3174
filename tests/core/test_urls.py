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
        (":memory:", "is not a URL: give memory://$"),
        ("sqlite::memory:", "too few slashes: give memory://$"),
        ("sqlite:///%ff.db", "is not UTF-8"),
        ("postgresql://host/db?schema=%ff", "is not UTF-8"),
        ("postgresql://ada:se/cret@host/db", "has a / before the @: in a password it is written %2F"),
        ("postgresql://ada:se?cret@host/db", r"has a \? before the @: in a password it is written %3F"),
        ("postgresql://host/db?sslmode=disable&sslmode=require", "sslmode is given 2 times: give it once"),
        ("postgresql://host/db?schema=a&schema=b", "schema is given 2 times"),
        ("postgresql://host/db?schema=a%25b", "no name of a schema: give 1 to 63 bytes, printable and without"),
        ("postgresql://host/db?schema={schema}", "no name of a schema"),
        ("postgresql://host/db?schema=a%00b", "no name of a schema"),
        ("postgresql+asyncpg://host/db?ssl=true&ssl=false", "ssl is given 2 times"),
        ("memory", "is not a URL"),
        ("memory:", "give memory://"),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(url: str, error: str) -> None:
    with pytest.raises(UnsupportedEngine, match=error) as raised:
        parse(url)
    assert str(raised.value).count("give ") <= 1


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("postgresql://host:5432/a@b", "postgresql://host:5432/a@b"),
        ("postgresql://[::1]/a@b", "postgresql://[::1]/a@b"),
        ("postgresql://one:1,two:2/db?user=a@b", "postgresql://one:1,two:2/db?user=a%40b"),
        ("postgresql:///db?host=one&host=two", "postgresql:///db?host=one,two"),
        ("postgresql:///db?host=one:1&host=two:2", "postgresql:///db?host=one,two&port=1,2"),
        ("postgresql:///db?host=one:1&host=two", "postgresql:///db?host=one,two&port=1,"),
        ("postgresql:///db?host=one:1", "postgresql:///db?host=one&port=1"),
        ("postgresql:///db?host=/run/a:1", "postgresql:///db?host=/run/a%3A1"),
    ],
)
def test_what_only_looks_like_a_mistake_is_read(url: str, server: str) -> None:
    assert parse(url).server == server


def test_a_mistake_in_a_password_does_not_show_it() -> None:
    for url in ("postgresql://ada:se/cret@host/db", "postgresql://ada:se?cret@host/db"):
        with pytest.raises(UnsupportedEngine) as raised:
            parse(url)
        assert "cret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/db",
        "postgresql+asyncpg://user:secret@host:not-a-port/db",
        "redis://user:se/c@secret@host/db",
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"url":"redis://:a/b@h","mail":"a@b.c"}', '{"url":"redis://:***@h","mail":"a@b.c"}'),
        ("host=db password=s3cret user=ada", "host=db password=*** user=ada"),
        ("http://h:80/?x=a@b.c", "http://h:80/?x=a@b.c"),
        ("//ada:12/3@h", "//ada:12/3@h"),  # as a port and a path
        ("max_tokens=5", "max_tokens=5"),
    ],
)
def test_passwords_are_told_from_what_looks_like_them(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_a_long_text_of_urls_is_read_once() -> None:
    """With a look to the end for each, this would take longer than a test may."""
    text = "//a:" * 500_000
    assert without_passwords(f"{text} @") == f"{text} @"


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


@pytest.mark.parametrize(
    ("parameter", "pooled"),
    [("?pgbouncer=true", True), ("?pgbouncer=off", False), ("?prepared_statement_cache_size=0", True), ("", None)],
)
def test_a_url_says_whether_a_pooler_is_before_the_server(parameter: str, pooled: bool | None) -> None:
    assert parse(f"postgresql://host/shop{parameter}").pooled is pooled
