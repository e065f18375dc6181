"""The two HTTP requests of a chat client: a prompt, and the snapshot of a timeline.

Every answer is bounded in bytes and time. Redirects are not followed: a prompt goes to nobody but whom it was
meant for. It records nothing; whoever asks does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from voicethere.chat.endpoints import Endpoints
from voicethere.core.chat.errors import ChatErrorStage
from voicethere.errors.bounds import DEFAULT_BOUNDS, cut_end, sanitise
from voicethere.wire.sem import SnapshotReading, UndecodableSem, decode_snapshot

_MAX_TEXT_BYTES = 16 * 1024
_MAX_LOCATION_CHARS = 500
_TEXT_SECONDS = 2.0


class ChatHttpError(Exception):
    """A request of a chat client that failed.

    `status` is the answer's, or None where there was none that could be used; `stage` is `send` or `hydrate`;
    `url` is what was asked; `message` is for people. `code` is the server's `x-error-code`, where it sent it.
    """

    def __init__(
        self, message: str, *, status: int | None, stage: ChatErrorStage, url: str, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.stage = stage
        self.url = url
        self.code = code


async def submit_prompt(
    client: httpx.AsyncClient,
    endpoints: Endpoints,
    conv_id: str,
    prompt: str,
    *,
    profile: str | None = None,
    registry: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> None:
    """Submit a user's prompt; return once it was accepted (2xx).

    Raises:
        ChatHttpError: it was not, or nobody can tell (`status` is None).
    """
    fields = {"prompt": prompt, "conv_id": conv_id}
    fields |= {name: value for name, value in (("profile", profile), ("registry", registry)) if value}
    request = client.build_request(
        "POST",
        endpoints.prompts,
        content=msgspec.json.encode(fields),
        headers={**(headers or {}), "content-type": "application/json", "accept-encoding": "identity"},
    )
    await _ask(client, request, ChatErrorStage.SEND, "chat request", timeout, max_bytes=0)


async def fetch_timeline(
    client: httpx.AsyncClient,
    endpoints: Endpoints,
    conv_id: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 15.0,
    max_bytes: int = 32 * 1024 * 1024,
) -> SnapshotReading:
    """The conversation's snapshot, without its bad entities.

    Raises:
        ChatHttpError: the answer is not 2xx (`status` is set); or there was none, or it is too long, or makes
            no sense (`status` is None).
    """
    url = endpoints.timeline(conv_id)
    # What is not compressed cannot be a bomb.
    request = client.build_request(
        "GET", url, headers={**(headers or {}), "accept": "application/json", "accept-encoding": "identity"}
    )
    body = await _ask(client, request, ChatErrorStage.HYDRATE, "timeline request", timeout, max_bytes)
    try:
        return decode_snapshot(body)
    except UndecodableSem as error:
        raise ChatHttpError(
            f"the timeline could not be read: {error}", status=None, stage=ChatErrorStage.HYDRATE, url=url
        ) from error


async def _ask(
    client: httpx.AsyncClient,
    request: httpx.Request,
    stage: ChatErrorStage,
    name: str,
    timeout: float,
    max_bytes: int,
) -> bytes:
    url = str(request.url)
    text_timeout = min(timeout / 2, _TEXT_SECONDS)
    handshake = _Handshake()
    request.extensions["trace"] = handshake
    try:
        async with asyncio.timeout(timeout):
            try:
                response = await client.send(request, stream=True, follow_redirects=False)
            finally:
                await handshake.close_unfinished()
            try:
                if not response.is_success:
                    raise await _refusal(response, stage, name, url, text_timeout)
                if max_bytes:
                    return await _body(response, max_bytes)
                # Read to its end, where it has one soon: the connection can then be used again.
                await _text(response, text_timeout)
                return b""
            finally:
                await response.aclose()
    except ChatHttpError:
        raise
    except _TooMuch as error:
        words = f"{name} failed: {error}"
        raise ChatHttpError(words, status=None, stage=stage, url=url) from error
    except TimeoutError as error:
        words = f"{name} failed: no whole answer within {timeout:g} s"
        raise ChatHttpError(words, status=None, stage=stage, url=url) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
        words = f"{name} failed: {failure_words(error)}"
        raise ChatHttpError(words, status=None, stage=stage, url=url) from error


class _TooMuch(Exception):
    pass


class _Handshake:
    """Watches a request's TLS handshake: httpcore 1.0 forgets what is cancelled there, and it stays open."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._unfinished = False

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        match event:
            case "connection.connect_tcp.complete":
                self._stream = info["return_value"]
            case "connection.start_tls.started":
                self._unfinished = True
            case "connection.start_tls.complete":
                self._unfinished = False

    async def close_unfinished(self) -> None:
        """Close the connection, where its handshake did not come to an end."""
        if self._unfinished:
            await self._stream.aclose()


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise _TooMuch(
            f"the answer is encoded as {cut_end(sanitise(encoding), 50)!r}, which was not asked for"
        )
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > max_bytes:
            raise _TooMuch(f"the answer is larger than {max_bytes:,} bytes")
    return bytes(body)


async def _refusal(
    response: httpx.Response, stage: ChatErrorStage, name: str, url: str, text_timeout: float
) -> ChatHttpError:
    status = response.status_code
    if response.is_redirect:
        location = cut_end(sanitise(response.headers.get("location", "")), _MAX_LOCATION_CHARS)
        words = (
            f"{name} was redirected ({status}) to {location}, which is not followed: "
            "use the gateway's own address as base URL"
        )
    else:
        words = await _text(response, text_timeout) or f"{name} failed ({status})"
    code = response.headers.get("x-error-code")
    return ChatHttpError(
        cut_end(words, DEFAULT_BOUNDS.message_chars), status=status, stage=stage, url=url, code=code
    )


async def _text(response: httpx.Response, timeout: float) -> str:
    # The text must not cost the status: what of it is too long, too slow, cut off or encoded is left out.
    body = bytearray()
    if response.headers.get("content-encoding", "identity") != "identity":
        return ""
    try:
        async with asyncio.timeout(timeout):
            async for part in response.aiter_raw():
                body += part
                if len(body) >= _MAX_TEXT_BYTES:
                    break
    except (httpx.HTTPError, TimeoutError):
        return ""
    text = bytes(body[:_MAX_TEXT_BYTES]).decode("utf-8", "replace")
    return sanitise(text).strip()


def failure_words(error: BaseException) -> str:
    """What an exception of a connection says, in one bounded line for people."""
    # Libraries wrap what the machine said ("connection refused") in words that say less.
    root, seen = error, {id(error)}
    while True:
        if isinstance(root, BaseExceptionGroup):
            below: BaseException | None = root.exceptions[0]
        else:
            below = root.__cause__ or root.__context__
        if below is None or id(below) in seen:
            break
        root = below
        seen.add(id(root))
    shown = root if isinstance(root, OSError) and str(root) else error
    text = " ".join(sanitise(str(shown)).split())
    return cut_end(text, 300) or type(shown).__name__
