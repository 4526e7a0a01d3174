"""The dashboard's answers as JSON, and its answers to what goes wrong."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.types import Scope

from afterwards import telemetry
from afterwards.core.errors import EngineError, InvalidOption, UnknownTask
from afterwards.core.text import shortened
from afterwards.dashboard.pages.errors import error_page
from afterwards.dashboard.site import within


class Json(Response):
    """Values as JSON. Whole numbers are exact, however large; text is ASCII, so it may hold any character."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def refusal(scope: Scope, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to a request that is not served: a page where a page was asked for."""
    if within(scope).is_api(scope):
        return Json({"detail": detail}, status, headers)
    return error_page(scope, status, detail, headers)


def answer_errors(app: FastAPI) -> None:
    """Give an application the answers to errors, in place of its own."""
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidOption, _unprocessable)
    app.add_exception_handler(UnknownTask, _unknown)
    app.add_exception_handler(EngineError, _unavailable)
    app.add_exception_handler(Exception, _broken)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return refusal(request.scope, error.status_code, error.detail, dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer as FastAPI does, without what was sent: it may be anything, also what is no JSON."""
    assert isinstance(error, RequestValidationError)
    if not within(request.scope).is_api(request.scope):
        return refusal(request.scope, 422, "; ".join(one["msg"] for one in error.errors()))
    found = [{"type": one["type"], "loc": one["loc"], "msg": one["msg"]} for one in error.errors()]
    return Json({"detail": found}, 422)


async def _unprocessable(request: Request, error: Exception) -> Response:
    if not within(request.scope).is_api(request.scope):
        return refusal(request.scope, 422, shortened(str(error)))
    parameter = getattr(error, "parameter", "")
    return Json({"detail": [{"type": "value_error", "loc": [parameter], "msg": shortened(str(error))}]}, 422)


async def _unknown(request: Request, error: Exception) -> Response:
    return refusal(request.scope, 404, shortened(str(error)))


async def _unavailable(request: Request, error: Exception) -> Response:
    telemetry.refused_request(f"{request.method} {request.url.path}", error)
    return refusal(request.scope, 503, "The task store is unavailable", {"Retry-After": "1"})


async def _broken(request: Request, error: Exception) -> Response:
    """Answer for an error of the dashboard itself. It is raised again, for the server's log."""
    return refusal(request.scope, 500, "Internal Server Error")
