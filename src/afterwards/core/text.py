"""Texts that fit into a record."""

TEXT_LIMIT = 64 * 1024
"""Bytes of UTF-8 that a message or a traceback may take."""


def shortened(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text, or where it is too long, its beginning and its end; ``limit`` is bytes of UTF-8."""
    raw = text.encode(errors="replace")  # half a surrogate pair can be in a string, but in no store
    if len(raw) <= limit:
        return raw.decode()
    half = limit // 2 - len(_CUT)
    return raw[:half].decode(errors="ignore") + _CUT + raw[-half:].decode(errors="ignore")


def is_unicode(text: str) -> bool:
    """Whether the text can be stored: a lone half of a surrogate pair, which JSON can send, cannot."""
    return text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)


def said_by(error: BaseException) -> str:
    """The text of an exception, also of one that fails to give it."""
    try:
        return shortened(str(error))
    except Exception:  # the user's code
        return "(its text cannot be had)"


_CUT = "\n[...]\n"
