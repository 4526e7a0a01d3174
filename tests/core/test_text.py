"""Texts of objects that refuse to give any."""

from collections.abc import Callable
from typing import Any

import pytest

from afterwards.core.errors import NotAsyncio, WorkerUnfit, WrappedTaskFunction
from afterwards.core.text import (
    LEFT_OUT,
    MOST_EXCEPTIONS,
    frames_of,
    printable,
    said_by,
    shown,
    text_of,
    type_name,
    written,
)


class Hidden(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise SystemExit("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Hidden):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class Odd(str):
    def encode(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no bytes")


class OddText(Exception):
    def __str__(self) -> str:
        return Odd("odd")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_text_that_cannot_be_had_is_replaced() -> None:
    assert said_by(Mute()) == "(str() raised)"
    assert said_by(OddText()) == "odd"
    assert text_of("\ud800") == "?"


def test_a_class_has_a_name_in_any_case() -> None:
    assert type_name(Nameless()) == "Exception"
    assert type_name(Mute()) == "Mute"


@pytest.mark.parametrize("error", [SyntaxError("by hand", ("file", "line", "column", "x"))])
def test_what_cannot_be_formatted_is_written_with_its_frames(error: BaseException) -> None:
    caught = raised(error)
    assert not printable(caught)
    text = written(caught, frames_of(caught))
    assert "in raised" in text and "SyntaxError: by hand" in text


def test_what_can_be_formatted_is_written_as_python_does() -> None:
    caught = raised(ValueError("usual"))
    assert printable(caught)
    assert written(caught, frames_of(caught)).endswith("ValueError: usual\n")


def test_a_worker_that_cannot_go_on_says_why() -> None:
    assert "it cannot claim tasks" in str(WorkerUnfit("it cannot claim tasks"))


def test_an_error_of_our_own_names_what_it_is_about() -> None:
    assert str(WrappedTaskFunction("mail", "a decorator is around it")) == 'task "mail": a decorator is around it'
    assert "hypercorn --worker-class asyncio" in str(NotAsyncio())


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_a_value_is_shown_whatever_it_is() -> None:
    assert [shown("a"), shown(Unshowable()), len(shown("a" * 1000))] == ["'a'", "(Unshowable)", 100]


def a_chain(links: int) -> Exception:
    """As a loop in an `except` block makes it."""
    last = ValueError("the first")
    for number in range(1, links):
        error = ValueError(f"number {number}")
        error.__context__ = last
        last = error
    return last


def a_group(members: int) -> Exception:
    return ExceptionGroup("all failed", [ValueError(f"number {number}") for number in range(members)])


def groups_that_share_members(members: int) -> Exception:
    """As task groups that fail by one error: each formats it again."""
    error = ValueError("number 1")
    return ExceptionGroup("all failed", [ExceptionGroup("one failed", [error])] * (members // 2))


@pytest.mark.parametrize("make", [a_chain, a_group, groups_that_share_members])
def test_exceptions_that_are_too_many_to_be_formatted_are_left_out(make: Callable[[int], Exception]) -> None:
    error = make(MOST_EXCEPTIONS + 1)
    assert written(error, None).splitlines() == [f"{type(error).__name__}: {error}", LEFT_OUT]
    assert not printable(error)
    few = make(MOST_EXCEPTIONS - 1)
    assert str(few) in written(few, None)
    assert "number 1\n" in written(few, None)
    assert printable(few)


def test_exceptions_that_refer_to_each_other_are_counted_once() -> None:
    error, other = ValueError("one"), ValueError("other")
    error.__cause__, other.__cause__ = other, error
    assert printable(error)
    assert "ValueError: other" in written(error, None)


def test_groups_in_groups_that_share_members_are_left_out() -> None:
    error: Exception = ValueError("leaf")
    for _ in range(14):  # Python would format the leaf 16,384 times
        error = ExceptionGroup("both failed", [error, error])
    assert LEFT_OUT in written(error, None)
    assert not printable(error)


def test_the_cause_that_members_share_is_counted_once() -> None:
    cause, members = ValueError("the cause"), [ValueError(f"number {number}") for number in range(MOST_EXCEPTIONS - 2)]
    for member in members:
        member.__cause__ = cause
    assert printable(ExceptionGroup("all failed", members))
