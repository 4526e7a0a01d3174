"""The answers to requests whose tasks cannot be stored."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request
from fastapi.responses import JSONResponse

from afterwards import telemetry
from afterwards.core.client_fault import is_client_fault
from afterwards.core.errors import (
    BrokerUnavailable,
    EngineError,
    QueueFull,
    RefusedArgument,
    RefusedContext,
    RefusedKey,
    RefusedValue,
    TooLarge,
    UnknownTask,
    WrongState,
)
from afterwards.core.text import shortened

STORE_UNAVAILABLE, BROKER_UNAVAILABLE = "The task store is unavailable", "The message broker is unavailable"

UNAVAILABLE = (EngineError, BrokerUnavailable)
"""The errors of stores and brokers: a client should try again."""

RETRY_AFTER = {"Retry-After": "1"}
"""Seconds after which a client should try again when its tasks could not be stored."""

RETRY_LATER = {"Retry-After": "5"}
"""Seconds after which a client should try again when a queue was full."""


UNPROCESSABLE = (RefusedValue, RefusedArgument, RefusedKey, RefusedContext)
"""The errors for values that the client may have sent. Each has a ``parameter``."""


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """Answer for a handler that could not enqueue."""
    telemetry.refused_request(f"{request.method} {request.url.path}", error)
    return unavailable(error)


async def _full(request: Request, error: Exception) -> JSONResponse:
    """Answer for a handler that could not enqueue because a queue was full."""
    return too_many(error)


async def _unprocessable(request: Request, error: Exception) -> JSONResponse:
    return unprocessable(error)


async def _not_found(request: Request, error: Exception) -> JSONResponse:
    """Answer for a task that the client has named, and that is not stored any more."""
    return JSONResponse({"detail": shortened(str(error))}, status_code=404)


async def _conflict(request: Request, error: Exception) -> JSONResponse:
    """Answer for a task whose state does not allow what the client has asked for."""
    return JSONResponse({"detail": shortened(str(error))}, status_code=409)


async def _too_large(request: Request, error: Exception) -> JSONResponse:
    """Answer for a task above the size limit. If the code made it so large, not the client, it is a server error."""
    if isinstance(error, TooLarge) and is_client_fault(error, request.scope["headers"]):
        return input_too_large(error)
    raise error


def input_too_large(error: TooLarge) -> JSONResponse:
    return JSONResponse({"detail": f"too large: {error.size:,} bytes, the limit is {error.limit:,}"}, status_code=413)


REFUSALS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
    **dict.fromkeys(UNAVAILABLE, _unavailable),
    QueueFull: _full,
    TooLarge: _too_large,
    **dict.fromkeys(UNPROCESSABLE, _unprocessable),
    UnknownTask: _not_found,
    WrongState: _conflict,
}
"""Answers by exception, for a handler whose call could not be stored."""


def unprocessable(error: Exception) -> JSONResponse:
    """Answer for a value that the client may have sent, in the form of FastAPI's own."""
    parameter = getattr(error, "parameter", "")
    return JSONResponse({"detail": [{"type": "value_error", "loc": [parameter], "msg": shortened(str(error))}]}, 422)


def too_many(error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=429, headers=RETRY_LATER)


def unavailable(error: Exception) -> JSONResponse:
    return JSONResponse({"detail": away(error)}, status_code=503, headers=RETRY_AFTER)


def away(error: Exception) -> str:
    """Return what a client is told of an error of ``UNAVAILABLE``."""
    return BROKER_UNAVAILABLE if isinstance(error, BrokerUnavailable) else STORE_UNAVAILABLE
