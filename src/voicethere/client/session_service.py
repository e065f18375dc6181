"""Requests to the session service: bounded, retried, every failure in plain words.

Knows HTTP; not what is asked (`provisioning`).
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from voicethere.client.polling import RETRIED_STATUSES, RETRY_DELAYS_SECONDS

HTTP_ERROR = "HTTP_ERROR"
_MAX_BODY_BYTES = 256 * 1024
_MAX_WORDS = 300


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The client's time and chance; tests pass their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


class RequestFailed(Exception):
    """No usable answer. `code` is the service's error code where it gave one, else `HTTP_ERROR`."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class OutOfTime(Exception):
    """The overall limit has passed."""


class Deadline:
    """The overall limit of one start."""

    def __init__(self, timing: Timing, seconds: float) -> None:
        self._timing = timing
        self._end = timing.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self._end - self._timing.monotonic())

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past the limit.

        Raises:
            OutOfTime: the limit passed.
        """
        await self._timing.sleep(min(seconds, self.remaining))
        if not self.remaining:
            raise OutOfTime


def sessions_url(api_base: str) -> str:
    """`{api_base}/v1/sessions`; a base that ends in `/` or `/v1` will do too.

    Raises:
        RequestFailed: not an http(s) URL.
    """
    try:
        parts = urlsplit(api_base.strip())
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        valid = False
        parts = urlsplit("")
    if not valid or parts.query or parts.fragment:
        raise RequestFailed(
            HTTP_ERROR, f"api_base must be an address like http://127.0.0.1:8080, not {_words(api_base)!r}"
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}/v1/sessions"


class SessionService:
    """Sends requests within one deadline."""

    def __init__(self, http: httpx.AsyncClient, api_key: str, timing: Timing, deadline: Deadline) -> None:
        if not api_key.isascii() or not api_key.isprintable() or not api_key.strip():
            raise RequestFailed(
                HTTP_ERROR, "api_key must be a key like vthc_…, of printable ASCII characters"
            )
        self._http = http
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        self._timing = timing
        self._deadline = deadline

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: msgspec.Struct | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a successful answer; 502, 503, 504 and connection failures are retried.

        Raises:
            RequestFailed: any other answer, or none after the retries.
            OutOfTime: the limit passed meanwhile.
        """
        content = None if json is None else msgspec.json.encode(json)
        all_headers = self._headers | (headers or {})
        if content is not None:
            all_headers["Content-Type"] = "application/json"
        for delay in (*RETRY_DELAYS_SECONDS, None):
            try:
                return await self._try(method, url, content, all_headers)
            except _Retryable as failure:
                if delay is None:
                    raise RequestFailed(
                        HTTP_ERROR, f"{failure.message} (tried 4 times)", status=failure.status
                    ) from None
            await self._deadline.sleep(delay)
        raise AssertionError("the last round either returns or raises")

    async def _try(
        self, method: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        if not self._deadline.remaining:
            raise OutOfTime
        request = self._http.build_request(
            method, url, content=content, headers=headers, timeout=self._deadline.remaining
        )
        try:
            async with asyncio.timeout(self._deadline.remaining):
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    body = await _bounded_body(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException):
            if self._deadline.remaining < 0.001:
                raise OutOfTime from None
            raise _Retryable("the session service did not answer in time") from None
        except httpx.TransportError as error:
            if _is_tls_failure(error):
                raise RequestFailed(HTTP_ERROR, f"no trusted TLS connection: {_words(error)}") from None
            if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.ProxyError):
                raise RequestFailed(HTTP_ERROR, f"the request cannot be sent: {_words(error)}") from None
            raise _Retryable(
                f"the session service cannot be reached: {_words(error) or type(error).__name__}"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise RequestFailed(HTTP_ERROR, f"the request failed: {_words(error)}") from None
        return _read(response, body)


class _Retryable(Exception):
    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes(16 * 1024):
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise RequestFailed(HTTP_ERROR, f"the answer is larger than {_MAX_BODY_BYTES // 1024} KiB")
    return bytes(body)


class _ErrorDetail(msgspec.Struct):
    code: str
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail


def _read(response: httpx.Response, body: bytes) -> tuple[int, dict[str, Any]]:
    status = response.status_code
    if status in RETRIED_STATUSES:
        raise _Retryable(f"HTTP {status} from the session service", status)
    if 300 <= status < 400:
        where = _words(response.headers.get("location", "nowhere"))
        raise RequestFailed(
            HTTP_ERROR, f"HTTP {status}: redirected to {where}; give that as api_base", status=status
        )
    if not 200 <= status < 300:
        try:
            detail = msgspec.json.decode(body, type=_ErrorBody).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            kind = _words(response.headers.get("content-type", "no content type"))
            raise RequestFailed(
                HTTP_ERROR,
                f"HTTP {status}, without an error body of ours ({kind}, {len(body)} bytes)",
                status=status,
            ) from None
        raise RequestFailed(
            _words(detail.code),
            f"HTTP {status} {_words(detail.code)}: {_words(detail.message)}",
            status=status,
        )
    try:
        return status, msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = _words(response.headers.get("content-type", "no content type"))
        raise RequestFailed(
            HTTP_ERROR, f"HTTP {status}, but not a JSON object ({kind}, {len(body)} bytes)", status=status
        ) from None


def _is_tls_failure(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return "CERTIFICATE_VERIFY_FAILED" in str(error) or "[SSL" in str(error)


def _words(value: object) -> str:
    """Foreign text, made fit for a message: one line, bounded."""
    text = " ".join(
        "".join(char if char.isprintable() else " " for char in str(value)[: 4 * _MAX_WORDS]).split()
    )
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"
