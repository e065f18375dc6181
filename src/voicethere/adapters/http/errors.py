"""One shape for every HTTP error: `{"error": {"code", "message", "request_id"}}`.

Knows how an exception becomes such a body. Does not know which routes raise what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from voicethere.adapters.http.request_ids import request_id_of
from voicethere.wire.http import HttpErrorBody, HttpErrorCode, HttpErrorDetail

MAX_MESSAGE_CHARS = 2000

_log = structlog.get_logger("voicethere.http")

_CODE_OF_STATUS: Mapping[int, HttpErrorCode] = {
    400: HttpErrorCode.BAD_REQUEST,
    401: HttpErrorCode.UNAUTHORIZED,
    403: HttpErrorCode.FORBIDDEN,
    404: HttpErrorCode.NOT_FOUND,
    405: HttpErrorCode.METHOD_NOT_ALLOWED,
    409: HttpErrorCode.CONFLICT,
    413: HttpErrorCode.PAYLOAD_TOO_LARGE,
    415: HttpErrorCode.UNSUPPORTED_MEDIA_TYPE,
    422: HttpErrorCode.VALIDATION_FAILED,
    429: HttpErrorCode.RATE_LIMITED,
    500: HttpErrorCode.INTERNAL,
    503: HttpErrorCode.UNAVAILABLE,
}

_DESCRIPTIONS: Mapping[int, str] = {
    400: "The request is malformed, for example no valid JSON.",
    401: "There is no bearer key in the request, or it is unknown, expired or revoked.",
    403: "This kind of key may not do this.",
    404: "There is no such thing, or this key may not see it.",
    409: "The current state does not allow it.",
    413: "The request body is larger than this route takes.",
    415: "The body has a media type that this route does not take.",
    422: "A field is missing, of a wrong type or out of range; the message names it.",
    429: "Too much of it now; `Retry-After` says when to try again.",
    500: "The server failed; its log has the same request id.",
    503: "A part that the server needs is away for the moment; try again.",
}


class HttpProblem(Exception):
    """An answer that is an error. Raise it anywhere below a route.

    `message` is shown to the caller: it says what was wrong and what would be right, and holds no secret.

    Example:
        >>> raise HttpProblem(409, HttpErrorCode.CONFLICT, "The slug 'shop' is taken: choose another.")
    """

    def __init__(
        self, status: int, code: HttpErrorCode, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def not_found(what: str) -> HttpProblem:
    """A 404: `what` is not there or may not be seen; both get the same words."""
    return HttpProblem(404, HttpErrorCode.NOT_FOUND, f"There is no such {what}, or this key may not see it.")


def forbidden(message: str) -> HttpProblem:
    """A 403."""
    return HttpProblem(403, HttpErrorCode.FORBIDDEN, message)


def conflict(message: str) -> HttpProblem:
    """A 409."""
    return HttpProblem(409, HttpErrorCode.CONFLICT, message)


def invalid(message: str) -> HttpProblem:
    """A 422 of the code VALIDATION_FAILED."""
    return HttpProblem(422, HttpErrorCode.VALIDATION_FAILED, message)


def error_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """The OpenAPI entries of these error statuses, for a route's `responses`."""
    return {
        status: ResponseSpec(
            data_container=HttpErrorBody,
            generate_examples=False,
            description=_DESCRIPTIONS.get(status, HTTPStatus(status).phrase),
        )
        for status in statuses
    }


Handler = Callable[[Request[Any, Any, Any], Exception], Response[HttpErrorBody]]


def exception_handlers(unavailable: tuple[type[Exception], ...] = ()) -> dict[int | type[Exception], Handler]:
    """Handlers for a whole Litestar app.

    `unavailable` are the exceptions that mean "a part is away for the moment" (a store, a queue): 503.
    """
    handlers: dict[int | type[Exception], Handler] = {
        HttpProblem: _from_problem,
        msgspec.ValidationError: _from_msgspec,
        msgspec.DecodeError: _from_msgspec,
        ValidationException: _from_parameters,
        HTTPException: _from_framework,
        Exception: _from_anything,
    }
    handlers.update(dict.fromkeys(unavailable, _from_unavailable))
    return handlers


def _answer(
    request: Request[Any, Any, Any],
    status: int,
    code: HttpErrorCode,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> Response[HttpErrorBody]:
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[:MAX_MESSAGE_CHARS] + "…"
    detail = HttpErrorDetail(code=code, message=message, request_id=request_id_of(request.scope))
    return Response(
        HttpErrorBody(error=detail),
        status_code=status,
        headers=dict(headers or {}),
        media_type=MediaType.JSON,
    )


def _from_problem(request: Request[Any, Any, Any], error: Exception) -> Response[HttpErrorBody]:
    assert isinstance(error, HttpProblem)
    return _answer(request, error.status, error.code, error.message, error.headers)


def _from_msgspec(request: Request[Any, Any, Any], error: Exception) -> Response[HttpErrorBody]:
    if isinstance(error, msgspec.ValidationError):
        return _answer(request, 422, HttpErrorCode.VALIDATION_FAILED, words_of(error))
    return _answer(request, 400, HttpErrorCode.BAD_REQUEST, f"The body is no valid JSON: {error}")


_AT = re.compile(r" - at `\$\.?(?P<path>.*?)`$")


def words_of(error: msgspec.ValidationError) -> str:
    """msgspec's words with the field in front: "`name`: Expected `str`, got `int`"."""
    text = str(error)
    found = _AT.search(text)
    if found is None:
        return text
    rest = text[: found.start()]
    return f"`{found['path']}`: {rest}" if found["path"] else rest


def _from_parameters(request: Request[Any, Any, Any], error: Exception) -> Response[HttpErrorBody]:
    assert isinstance(error, ValidationException)
    extra = error.extra if isinstance(error.extra, list) else []
    parts: list[str] = []
    for entry in extra:
        if not isinstance(entry, dict):
            continue
        key, words = entry.get("key"), str(entry.get("message", ""))
        if key == "data":  # the body as a whole; the framework reports a missing one as a KeyError
            words, key = ("A JSON object is required as the body." if words == "'data'" else words), None
        parts.append(f"`{key}`: {words}" if key else words)
    # The framework's own detail repeats the URL with its query, which may hold a token: never passed on.
    message = "; ".join(parts) or "A parameter is missing or of a wrong type."
    return _answer(request, 422, HttpErrorCode.VALIDATION_FAILED, message)


def _from_framework(request: Request[Any, Any, Any], error: Exception) -> Response[HttpErrorBody]:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status >= 500 and status != 503:
        return _from_anything(request, error)
    code = _CODE_OF_STATUS.get(status)
    if code is None:
        status, code = 400, HttpErrorCode.BAD_REQUEST
    if status == 404:
        message = "There is nothing at this path; /docs lists what there is."
    elif status == 405:
        message = f"{request.method} is not allowed here; /docs lists what is."
    elif status == 413:
        message = f"The body is too large: this route takes at most {_limit_of(request)} bytes."
    else:
        message = error.detail
    return _answer(request, status, code, message, error.headers)


def _limit_of(request: Request[Any, Any, Any]) -> str:
    route_handler = request.scope.get("route_handler")
    resolve = getattr(route_handler, "resolve_request_max_body_size", None)
    return str(resolve()) if resolve is not None else "its limit of"


def _from_unavailable(request: Request[Any, Any, Any], error: Exception) -> Response[HttpErrorBody]:
    _log.error("unavailable", problem=str(error), exception=type(error).__name__)
    message = "A part that this needs is away for the moment. Try again."
    return _answer(request, 503, HttpErrorCode.UNAVAILABLE, message, {"Retry-After": "1"})


def _from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[HttpErrorBody]:
    _log.error("unhandled_exception", exc_info=error)
    message = "The server failed. Its log has the details under this request id."
    return _answer(request, 500, HttpErrorCode.INTERNAL, message)
