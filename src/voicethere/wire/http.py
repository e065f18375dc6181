"""The body of every HTTP error, and the closed list of its codes (contract: README.md)."""

from __future__ import annotations

import enum

import msgspec


class HttpErrorCode(enum.StrEnum):
    """Every code that an HTTP error body may carry."""

    BAD_REQUEST = "BAD_REQUEST"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    CONFLICT = "CONFLICT"
    NOT_DEPLOYED = "NOT_DEPLOYED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    VALIDATION_FAILED = "VALIDATION_FAILED"
    INVALID_BUNDLE = "INVALID_BUNDLE"
    CAPACITY_EXCEEDED = "CAPACITY_EXCEEDED"
    MONTHLY_USAGE_EXCEEDED = "MONTHLY_USAGE_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"


class HttpErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`request_id` is also in the `x-request-id` header and in the server's log line."""

    code: HttpErrorCode
    message: str
    request_id: str


class HttpErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """`{"error": {"code", "message", "request_id"}}`."""

    error: HttpErrorDetail
