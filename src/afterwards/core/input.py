"""Decide whether a request's own input is the reason for an error."""

from collections.abc import Sequence

from afterwards.core.errors import FileTooLarge, TooLarge


def is_from_input(error: TooLarge, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the client sent what is too large: an uploaded file, or a body of a size like that of the arguments.

    JSON may write a value at more length than a body does, by a third for bytes; half the limit allows for that.
    """
    if isinstance(error, FileTooLarge):
        return True
    sent = dict(headers)
    if b"transfer-encoding" in sent:  # in chunks, and nobody said how many
        return True
    length = sent.get(b"content-length", b"0")
    return length.isdigit() and int(length) * 2 >= error.limit
