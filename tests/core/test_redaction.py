"""What hides secrets: by parameter, by key, and by their texts."""

import json
import re
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterwards.core.redaction import HIDDEN, Redactor, _forms, _without_pieces, redactor_of, says_secret
from afterwards.core.task import State, Task

CANARY = "Kanarienvogel-7f3"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


def redactor(secret: str = CANARY) -> Redactor:
    return Redactor({"key": secret}, None, ["key"])


SAY_IT = """
    password passwd new_password oldPassword secret client_secret token access_token accessToken api_key apikey
    X-Api-Key APIKey authorization Authorization credential credentials private_key privateKey PASSWORD
    password2 db-password signing_key cookie Set-Cookie
"""
SAY_NOTHING = "email max_tokens tokens tokenize secretary monkey key author keyboard_api id passage compassword"


@pytest.mark.parametrize("name", SAY_IT.split())
def test_these_names_say_that_their_value_is_secret(name: str) -> None:
    assert says_secret(name)


@pytest.mark.parametrize("name", SAY_NOTHING.split())
def test_these_names_do_not(name: str) -> None:
    assert not says_secret(name)


def test_a_secret_parameter_is_hidden_whatever_it_holds() -> None:
    values: dict[str, Any] = {"one": CANARY, "two": {"any": [1, None]}, "three": None, "four": 5}
    assert Redactor(values, None, values).arguments(values) == dict.fromkeys(values, HIDDEN)


def test_keys_that_say_it_are_hidden_at_any_depth() -> None:
    values = {"users": [{"name": "Ann", "password": CANARY}, {"login": {"api_key": {"deep": CANARY}}}]}
    shown = Redactor(values, None, ()).arguments(values)
    assert shown == {"users": [{"name": "Ann", "password": HIDDEN}, {"login": {"api_key": HIDDEN}}]}


def test_a_key_within_one_parameter_is_hidden_there_only() -> None:
    values = {"user": {"pin": "1234567"}, "card": {"pin": "7654321"}}
    assert Redactor(values, None, ["user.pin"]).arguments(values) == {
        "user": {"pin": HIDDEN},
        "card": {"pin": "7654321"},
    }


def test_the_result_is_hidden_and_its_text() -> None:
    hide = Redactor({}, {"link": CANARY}, ["return"])
    assert hide.result({"link": CANARY}) == HIDDEN
    assert hide.text(f"sent {CANARY}!") == f"sent {HIDDEN}!"
    assert Redactor({}, None, ["return"]).result(None) is None


def test_a_secret_that_another_value_repeats_is_hidden_there_too() -> None:
    values = {"key": CANARY, "url": f"https://x/?k={CANARY}", "list": [{CANARY: 1}]}
    shown = Redactor(values, None, ["key"]).arguments(values)
    assert CANARY not in json.dumps(shown)
    assert redactor().result({"echo": [CANARY, 5, None, True]}) == {"echo": [HIDDEN, 5, None, True]}


@pytest.mark.parametrize(
    "secret",
    [
        "quote\" and ' too",
        "back\\slash",
        "line\nbreak here",
        "tab\tbed",
        "a b+c/d?e=f&g",
        "Überraschung€",
        "  spaced  ",
    ],
)
def test_a_secret_is_found_as_programs_show_it(secret: str) -> None:
    hide = redactor(secret)
    for shown in (secret, repr(secret), json.dumps(secret), quote(secret, safe=""), quote_plus(secret), secret.strip()):
        hidden = hide.text(f"before {shown} after")
        assert hidden.startswith("before ")
        assert hidden.endswith(" after")
        assert shown.strip("\"'") not in hidden


def test_each_line_of_a_secret_is_found() -> None:
    key = "-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----"
    assert redactor(key).text("  | ijklmnop\n  | abcdefgh") == f"  | {HIDDEN}\n  | {HIDDEN}"


def test_bytes_are_found_as_text() -> None:
    hide = redactor("S2FuYXJpZW52b2dlbC03ZjM=")  # what pydantic stores for the canary as bytes
    assert hide.text(f"wrong: {CANARY.encode()!r}") == f"wrong: b'{HIDDEN}'"


def test_a_number_is_found_as_text_and_as_a_value() -> None:
    hide = Redactor({"pin": 4711471147114711, "token": True}, None, ["pin"])
    assert hide.text("wrong pin 4711471147114711") == f"wrong pin {HIDDEN}"
    assert hide.result([4711471147114711, 5, True]) == [HIDDEN, 5, True]


def test_a_long_secret_is_found_when_a_library_has_shortened_it() -> None:
    shown = redactor(JWT).text(f"input_value='{JWT[:25]}...{JWT[-24:]}' [type=bad]")
    assert shown == f"input_value='{HIDDEN}...{HIDDEN}' [type=bad]"


def test_a_very_long_secret_is_found_quickly_and_whole() -> None:
    secret = "".join(f"{number:06d}" for number in range(40_000))
    assert (
        redactor(secret).text(f"a {secret} b {secret[:40]} c {secret[-40:]} d") == f"a {HIDDEN} b {HIDDEN} c {HIDDEN} d"
    )


@pytest.mark.parametrize("size", [4, 11, 12, 39, 40, 41, 90])
def test_of_thousands_of_secrets_each_is_found(size: int) -> None:
    secrets = [f"{number:06d}".rjust(size, "x")[-size:] for number in range(1000, 1000 + 200_000 // size)]
    hide = Redactor({"keys": secrets}, None, ["keys"])
    shown = hide.text("; ".join(secrets[::7]))  # minutes, if each was looked for by itself
    assert shown == "; ".join([HIDDEN] * len(secrets[::7]))
    assert hide.arguments({"other": secrets}) == {"other": [HIDDEN] * len(secrets)}


SOME = st.text('ab1 "\\\nä%', min_size=1, max_size=60)


@given(secrets=st.lists(SOME, max_size=5), text=st.lists(SOME, max_size=5), data=st.data())
def test_the_longest_form_that_begins_first_is_hidden(secrets: list[str], text: list[str], data: st.DataObject) -> None:
    """The same as with one regular expression of all forms, before pieces are looked for."""
    parts = data.draw(st.permutations([*secrets, *text]))
    shown = Redactor({"keys": secrets}, None, ["keys"]).text("".join(parts))
    forms = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
    expected = re.sub("|".join(map(re.escape, forms)) or "(?!)", HIDDEN, "".join(parts))
    pieces = {form[at : at + 12] for form in forms for at in range(len(form) - 11)}
    assert shown == _without_pieces(expected, pieces)


def test_no_text_takes_long_to_search_for_urls() -> None:
    begun = perf_counter()
    Redactor({}, None, ()).text("?" + "token" * 50_000 + " a=b")  # 250 KB: anybody may send them
    assert perf_counter() - begun < 5  # minutes, if each "token" began a search of its own


def test_a_secret_parameter_within_the_value_of_another_is_hidden() -> None:
    assert redactor().text("/?next=/a?token=1?2&b=3&api_key=4") == f"/?next=/a?token={HIDDEN}&b=3&api_key={HIDDEN}"


def test_short_secrets_and_other_texts_are_left() -> None:
    assert redactor("abc").text("abc of it") == "abc of it"
    assert redactor().text("nothing to hide: a@b.c, http://host:8080/x?y=a@b.c") == (
        "nothing to hide: a@b.c, http://host:8080/x?y=a@b.c"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pa$$w0rd@db/x", "postgresql://me:[hidden]@db/x"),
        ("redis://:hunter2@host:6379/0", "redis://:[hidden]@host:6379/0"),
        ("https://a:b%40c@h/?q=1", "https://a:[hidden]@h/?q=1"),
        ("https://h/reset?user=5&reset_token=abc#top", "https://h/reset?user=5&reset_token=[hidden]#top"),
    ],
)
def test_passwords_in_urls_are_hidden_in_any_text(url: str, shown: str) -> None:
    assert Redactor({}, None, ()).text(f"could not reach {url}: timeout") == f"could not reach {shown}: timeout"


def test_a_long_text_that_repeats_a_name_is_read_once() -> None:
    """With a step back for each name, this would take longer than a test may."""
    text = "?" + "password" * 250_000 + " ="
    assert Redactor({}, None, ()).text(text) == text


def test_a_task_with_damaged_arguments_hides_nothing_and_raises_nothing() -> None:
    task = Task(id="1", name="f", arguments="{", created_at=datetime.now(UTC), state=State.QUEUED, secrets=("key",))
    assert redactor_of(task).text(CANARY) == CANARY


@given(secret=st.text(min_size=4, max_size=60), before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_text_shows_a_secret(secret: str, before: str, after: str) -> None:
    shown = redactor(secret).text(before + secret + after)
    assert secret not in shown.replace(HIDDEN, "\0")
