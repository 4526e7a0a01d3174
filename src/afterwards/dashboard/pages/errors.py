"""Errors as pages."""

from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from afterwards.dashboard.pages.rendering import render

TITLES: Final = {
    403: "Not permitted",
    404: "Not found",
    405: "Not possible here",
    503: "The task store is away",
}

HINTS: Final = {
    404: "It may have been deleted: finished tasks are kept as long as their retention says.",
    503: "Tasks and workers go on as soon as it answers again. This page tries again when you reload it.",
}


def error_page(scope: Scope, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the page for an error."""
    title = TITLES.get(status, "This did not work")
    page = render(scope, "error.html", status, title=title, detail=detail, hint=HINTS.get(status))
    page.headers.update(headers or {})
    return page
