"""The fields of a form that a page has sent."""

from urllib.parse import parse_qs

from fastapi import HTTPException, Request

LARGEST = 256 * 1024
"""The bytes of a form: a thousand ids and a filter are less."""


async def fields_of(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form. Raises HTTPException.

    FastAPI's own way needs python-multipart, which these forms do without.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "This address takes the forms of the dashboard.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise HTTPException(413, "This form is too large.")
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=2000)
    except ValueError:
        raise HTTPException(422, "This form cannot be read.") from None
