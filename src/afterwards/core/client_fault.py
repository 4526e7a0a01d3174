"""Decide whether the client or the application caused a size error: the answer is 413 or 500."""

from collections.abc import Sequence

from afterwards.core.errors import FileTooLarge, TooLarge


def is_client_fault(error: TooLarge, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return True if the client sent the excess: an uploaded file, or a body of at least half the limit.

    Half, because JSON may be longer than the body that it came from: by a third for bytes. A chunked body has no known
    length and counts as the client's.
    """
    if isinstance(error, FileTooLarge):
        return True
    sent = dict(headers)
    if b"transfer-encoding" in sent:  # of unknown length
        return True
    length = sent.get(b"content-length", b"0")
    return length.isdigit() and int(length) * 2 >= error.limit
