"""Texts of users' objects and exceptions: shortened for a record, and never raising."""

import traceback
from types import TracebackType

TEXT_LIMIT = 64 * 1024
"""The most bytes of UTF-8 in a message or a traceback."""

NAME_LIMIT = 200
"""The most bytes of UTF-8 in the name of an exception's class."""


def shortened(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return the text, cut in the middle if it is longer than ``limit`` bytes of UTF-8."""
    raw = str.encode(text, errors="replace")  # a string may hold a lone surrogate, which no store accepts
    if len(raw) <= limit:
        return raw.decode()
    half = limit // 2 - len(_CUT)
    return raw[:half].decode(errors="ignore") + _CUT + raw[-half:].decode(errors="ignore")


def text_of(value: object) -> str:
    """Return the shortened ``str()`` of a user's object. Never raises."""
    try:
        return shortened(str(value))
    except BaseException:  # the user's code may raise anything
        return NO_TEXT


def shown(value: object) -> str:
    """Return the first 100 characters of a value's repr, or its type if that raises (an int of 5,000 digits)."""
    try:
        text = repr(value)
    except BaseException:  # the user's code
        return f"({type(value).__name__})"
    return text if len(text) <= 100 else f"{text[:97]}..."


def is_unicode(text: str) -> bool:
    """Return True if the text has no lone surrogate. JSON can contain one, a store cannot."""
    return text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)


def said_by(error: BaseException) -> str:
    """Return the shortened message of an exception. Never raises."""
    return text_of(error)


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class. Never raises, whatever its metaclass does."""
    try:
        return shortened(type(error).__qualname__, NAME_LIMIT)
    except BaseException:  # the user's code, as above
        return "Exception"


def written(error: BaseException, frames: TracebackType | None) -> str:
    """Return the traceback text, or frames and message if the exception cannot be formatted. Never raises."""
    try:
        if is_one_of_many(error):
            return f"{''.join(traceback.format_tb(frames))}{type_name(error)}: {said_by(error)}\n{LEFT_OUT}\n"
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as trouble:  # the user's code, as above, or an exception object made by hand
        lines = "".join(traceback.format_tb(frames))
        return f"{lines}{type_name(error)}: {said_by(error)}\n(no more: formatting it raised {type_name(trouble)})\n"


def printable(error: BaseException) -> bool:
    """Return True if logging can format and write the exception in little time. A stream refuses lone surrogates."""
    try:
        return not is_one_of_many(error) and all(
            map(is_unicode, traceback.format_exception(type(error), error, frames_of(error)))
        )
    except BaseException:  # the user's code, as above
        return False


def is_one_of_many(error: BaseException) -> bool:
    """Return True if so many exceptions belong to this one that formatting them would block for seconds.

    The time to format a chain grows with the square of its length. A loop in an ``except`` block makes long chains, a
    task group with many failures a large group. Groups that share members may have any number of them.
    """
    seen = {id(error)}
    found = [error]
    formatted = 0
    while found and formatted + len(found) <= MOST_EXCEPTIONS:
        one = found.pop()
        formatted += 1
        for other in (one.__cause__, one.__context__):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                found.append(other)
        if isinstance(one, BaseExceptionGroup):  # a member is formatted in each group that has it
            seen.update(map(id, one.exceptions[:MOST_EXCEPTIONS]))
            found.extend(one.exceptions[:MOST_EXCEPTIONS])
    return formatted + len(found) > MOST_EXCEPTIONS


def frames_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception, even if its class overrides the attribute."""
    frames: TracebackType | None = _FRAMES.__get__(error)
    return frames


MOST_EXCEPTIONS = 100
"""The most exceptions in a traceback: causes, contexts and members of groups."""

LEFT_OUT = (
    f"(more than {MOST_EXCEPTIONS} exceptions belong to it: causes, contexts or members of groups; they are left out)"
)

NO_TEXT = "(str() raised)"

_FRAMES = BaseException.__dict__["__traceback__"]

_CUT = "\n[...]\n"
