"""Texts that fit into a record."""

import traceback
from types import TracebackType

TEXT_LIMIT = 64 * 1024
"""Bytes of UTF-8 that a message or a traceback may take."""

NAME_LIMIT = 200
"""Bytes of UTF-8 that the name of an exception's class may take."""


def shortened(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text, or where it is too long, its beginning and its end; ``limit`` is bytes of UTF-8."""
    raw = str.encode(text, errors="replace")  # half a surrogate pair can be in a string, but in no store
    if len(raw) <= limit:
        return raw.decode()
    half = limit // 2 - len(_CUT)
    return raw[:half].decode(errors="ignore") + _CUT + raw[-half:].decode(errors="ignore")


def text_of(value: object) -> str:
    """The text of a user's object, also of one that fails to give it."""
    try:
        return shortened(str(value))
    except BaseException:  # the user's code may raise anything
        return NO_TEXT


def shown(value: object) -> str:
    """The beginning of a value's repr, also of one that has none: as of a whole number with 5,000 digits."""
    try:
        text = repr(value)
    except Exception:  # the user's code
        return f"({type(value).__name__})"
    return text if len(text) <= 100 else f"{text[:97]}..."


def is_unicode(text: str) -> bool:
    """Whether the text can be stored: a lone half of a surrogate pair, which JSON can send, cannot."""
    return text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)


def said_by(error: BaseException) -> str:
    """The text of an exception, also of one that fails to give it."""
    return text_of(error)


def type_name(error: BaseException) -> str:
    """The qualified name of an exception's class, which its metaclass can hide."""
    try:
        return shortened(type(error).__qualname__, NAME_LIMIT)
    except BaseException:  # the user's code, as above
        return "Exception"


def written(error: BaseException, frames: TracebackType | None) -> str:
    """The traceback from these frames on. Of an exception that cannot be formatted, at least those and its message."""
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as trouble:  # the user's code, as above, or the format of what was made by hand
        lines = "".join(traceback.format_tb(frames))
        return f"{lines}{type_name(error)}: {said_by(error)}\n(no more of it, for that raised {type_name(trouble)})\n"


def printable(error: BaseException) -> bool:
    """Whether a log can format the exception, and write it: a stream refuses half a surrogate pair."""
    try:
        return all(map(is_unicode, traceback.format_exception(type(error), error, frames_of(error))))
    except BaseException:  # the user's code, as above
        return False


def frames_of(error: BaseException) -> TracebackType | None:
    """The traceback of an exception, whatever its class makes of the attribute."""
    frames: TracebackType | None = _FRAMES.__get__(error)
    return frames


NO_TEXT = "(its text cannot be had)"

_FRAMES = BaseException.__dict__["__traceback__"]

_CUT = "\n[...]\n"
