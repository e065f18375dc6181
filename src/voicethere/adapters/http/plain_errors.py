"""Errors as plain text for people, where clients show an error's body as it is (contract: sem-chat.md).

Knows the JSON body of `errors`, which it turns into text; it does not know who made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.enums import MediaType, ScopeType
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from voicethere.adapters.http.errors import error_responses
from voicethere.wire.http import HttpErrorBody

ERROR_CODE_HEADER = "x-error-code"
_PLAIN_TEXT = b"text/plain; charset=utf-8"
_LENGTH_AND_TYPE = (b"content-type", b"content-length")

_body_decoder = msgspec.json.Decoder(HttpErrorBody)


def plain_error_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """The OpenAPI entries of these error statuses as they are answered here, for a route's `responses`."""
    return {
        status: ResponseSpec(
            data_container=str,
            generate_examples=False,
            media_type=MediaType.TEXT,
            description=spec.description,
        )
        for status, spec in error_responses(*statuses).items()
    }


class PlainErrors:
    """ASGI middleware: below these path prefixes an error's body is its message, its code is a header."""

    def __init__(self, app: ASGIApp, prefixes: Sequence[str]) -> None:
        self._app = app
        self._prefixes = tuple(prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not scope["path"].startswith(self._prefixes):
            await self._app(scope, receive, send)
            return
        held: Any = None
        parts: list[bytes] = []

        async def plain_send(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_json_error(message):
                held = message
            elif held is None:
                await send(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    start, body = _plain(held, b"".join(parts))
                    await send(start)
                    await send({"type": "http.response.body", "body": body, "more_body": False})

        await self._app(scope, receive, plain_send)


def _is_json_error(message: Any) -> bool:
    kinds = [value for name, value in message.get("headers", []) if name.lower() == b"content-type"]
    return message["status"] >= 400 and any(kind.startswith(b"application/json") for kind in kinds)


def _plain(start: Any, body: bytes) -> tuple[Any, bytes]:
    try:
        error = _body_decoder.decode(body).error
    except msgspec.DecodeError:
        return start, body
    text = error.message.encode()
    others = [pair for pair in start.get("headers", []) if pair[0].lower() not in _LENGTH_AND_TYPE]
    start["headers"] = [
        *others,
        (b"content-type", _PLAIN_TEXT),
        (b"content-length", str(len(text)).encode()),
        (ERROR_CODE_HEADER.encode(), error.code.value.encode()),
    ]
    return start, text
