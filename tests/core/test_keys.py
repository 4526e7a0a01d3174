"""How a call's arguments become a key."""

from dataclasses import dataclass
from typing import Any

import pytest

from afterwards.core.errors import InvalidKey, InvalidOption
from afterwards.core.keys import (
    AllArguments,
    Bound,
    Computed,
    Literal,
    Template,
    as_key,
    check_parameters,
    declared,
    given,
    key_of,
)


@dataclass
class Order:
    id: int


def call(*args: Any, **values: Any) -> Bound:
    return Bound(args, values, values, repr(values))


def test_a_template_takes_arguments_and_what_belongs_to_them() -> None:
    found = key_of("pay", "unique", Template("{user}-{order.id}-{items[0]}"), call(user=5, order=Order(7), items=["a"]))
    assert found == "5-7-a"


def test_a_function_gets_the_arguments_as_they_were_given() -> None:
    key = Computed(lambda user, *, copies: f"{user}:{copies}")
    assert key_of("pay", "unique", key, call("ada", copies=2)) == "ada:2"


def test_all_arguments_make_one_key_for_equal_calls() -> None:
    first, same, other = (key_of("pay", "unique", AllArguments(), call(n=n)) for n in (1, 1, 2))
    assert first == same != other
    assert as_key(first) == first


def test_a_literal_is_taken_as_it_is_for_a_user_may_have_sent_it() -> None:
    assert key_of("pay", "unique", Literal("a-b"), call()) == "a-b"
    assert key_of("pay", "unique", Literal("{user.secret}"), call(user="x")).startswith("sha256:")


@pytest.mark.parametrize("text", ["ada@example.com", "two words", "é", "x" * 101])
def test_what_is_no_key_is_kept_as_its_digest(text: str) -> None:
    assert as_key(text) == as_key(text) != as_key(text + "!")
    assert len(as_key(text)) == 71


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (Template("{order.id}"), "AttributeError"),
        (Computed(lambda **values: 1 / 0), "ZeroDivisionError"),
        (Computed(lambda **values: 5), "the key is 5"),
        (Computed(lambda **values: ""), "the key is ''"),
        (Template("{order}"), "the key is ''"),
    ],
)
def test_a_key_that_cannot_be_made_names_task_and_option(key: Any, problem: str) -> None:
    with pytest.raises(InvalidKey, match=f'task "pay", unique: .*{problem}') as error:
        key_of("pay", "unique", key, call(order=""))
    assert (error.value.task, error.value.option) == ("pay", "unique")


def test_a_function_declares_templates_and_a_call_gives_texts() -> None:
    assert declared("unique", "{user}") == Template("{user}")
    assert given("unique", "{user}") == Literal("{user}")
    for read in (declared, given):
        assert read("unique", True) == AllArguments()
        assert read("unique", False) is None
        assert read("unique", None) is None
        assert read("unique", str) == Computed(str)


@pytest.mark.parametrize("value", [5, ["a"], True, ""])
def test_other_values_are_refused(value: Any) -> None:
    for read in (declared, given):
        with pytest.raises(InvalidOption, match="concurrency_key="):
            read("concurrency_key", value)


def test_a_template_can_name_only_what_the_function_has() -> None:
    check_parameters("pay", "unique", Template("{user.id} {items[0]} {{}}"), ["user", "items"])
    check_parameters("pay", "unique", Computed(str), [])
    check_parameters("pay", "unique", None, [])
    with pytest.raises(InvalidOption, match=r'task "pay", unique=.* no argument "usr"; its arguments: user, items'):
        check_parameters("pay", "unique", Template("{usr}"), ["user", "items"])
    with pytest.raises(InvalidOption, match="its arguments: none"):
        check_parameters("pay", "unique", Template("{usr}"), [])
    with pytest.raises(InvalidOption, match="not a valid template"):
        check_parameters("pay", "unique", Template("{user"), ["user"])
