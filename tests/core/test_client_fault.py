"""Whose fault it is that something is too large."""

import pytest

from afterwards.core.client_fault import is_client_fault
from afterwards.core.errors import FileTooLarge, TooLarge


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([(b"content-length", b"10")], False),
        ([(b"content-length", b"nonsense")], False),
        ([(b"content-length", b"500")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_arguments_are_the_clients_where_its_body_was_about_as_large(
    headers: list[tuple[bytes, bytes]], expected: bool
) -> None:
    assert is_client_fault(TooLarge("f", "arguments", 2000, 1000), headers) is expected


def test_an_uploaded_file_is_always_the_clients() -> None:
    assert is_client_fault(FileTooLarge("f", "file", 2000, 1000), [])
