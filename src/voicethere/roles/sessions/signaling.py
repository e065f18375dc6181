"""The signaling WebSocket as an ASGI app: the token before the upgrade, then text frames to the gateway.

Knows ASGI. The join token is in the query string: it is taken out of the scope before anything can log
it, and `JoinTokenFilter` keeps it out of what the server's own loggers say.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from voicethere.adapters.http.request_ids import REQUEST_ID_HEADER, request_id_of
from voicethere.adapters.store.store import StoreUnavailable
from voicethere.roles.sessions.gateway import RoomFull, SignalingGateway
from voicethere.roles.sessions.outbox import Close
from voicethere.roles.sessions.rooms import PeerSocket
from voicethere.roles.sessions.tokens import TokenRefused
from voicethere.wire.http import HttpErrorBody, HttpErrorCode, HttpErrorDetail

SIGNALING_PATH = "/v1/signaling"

UVICORN_SETTINGS: dict[str, Any] = {
    "ws": "websockets-sansio",
    "ws_ping_interval": 5.0,
    "ws_ping_timeout": 5.0,
    # Above the gateway's own limit: what is a little too large gets its 1008, what is huge a 1009.
    "ws_max_size": 4 * 1024 * 1024,
    "ws_per_message_deflate": False,
}
"""How uvicorn must be set for this app: it is uvicorn that pings, and drops a socket that does not answer."""

_QUERY_TOKEN = re.compile(r"(token=)[^&\s\"']+")
_REDACTED_QUERY = b"token=[redacted]"

_log = structlog.get_logger(__name__)


class JoinTokenFilter(logging.Filter):
    """Takes join tokens out of log records, for loggers that log request lines (`uvicorn.error`).

    Example:
        >>> logging.getLogger("uvicorn.error").addFilter(JoinTokenFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "token=" in message:
            record.msg, record.args = _QUERY_TOKEN.sub(r"\1[redacted]", message), None
        return True


def signaling_app(gateway: SignalingGateway) -> ASGIApp:
    """The ASGI app of `GET /v1/signaling?token=…` (websocket scopes only)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = _take_token(scope)
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            socket = await gateway.admit(token)
        except TokenRefused as refusal:
            _log.info("join_refused", reason=str(refusal))
            await _deny(scope, send, 401, HttpErrorCode.UNAUTHORIZED, "The join token is not valid.")
            return
        except RoomFull:
            message = "The session has as many signaling sockets as it may have; close one first."
            await _deny(scope, send, 429, HttpErrorCode.RATE_LIMITED, message)
            return
        except StoreUnavailable as problem:
            _log.warning("join_unanswered", reason=str(problem))
            message = "The session cannot be looked up now; try again in a moment."
            await _deny(scope, send, 503, HttpErrorCode.UNAVAILABLE, message)
            return
        structlog.contextvars.bind_contextvars(session_id=socket.room.session.session_id)
        try:
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await _converse(gateway, socket, receive, send)
        except OSError:
            _log.info("join_abandoned")
        finally:
            await gateway.detach(socket)

    return app


def with_signaling(http_app: ASGIApp, signaling: ASGIApp) -> ASGIApp:
    """One app for a server: websockets go to `signaling` (404 elsewhere), everything else to `http_app`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.WEBSOCKET:
            await http_app(scope, receive, send)
        elif scope["path"] == SIGNALING_PATH:
            await signaling(scope, receive, send)
        else:
            _take_token(scope)
            await _deny(
                scope, send, 404, HttpErrorCode.NOT_FOUND, f"Signaling is at {SIGNALING_PATH}, not here."
            )

    return app


def _take_token(scope: Scope) -> str:
    """The token of the query, which is blanked: servers log the query of a socket that they accept."""
    raw = scope["query_string"]
    if not raw:
        return ""
    scope["query_string"] = _REDACTED_QUERY
    try:
        values = parse_qs(raw.decode("ascii"), max_num_fields=16).get("token", [])
    except ValueError:
        return ""
    return values[0] if len(values) == 1 else ""


async def _deny(scope: Scope, send: Send, status: int, code: HttpErrorCode, message: str) -> None:
    """Refuse the upgrade with an HTTP answer; where the server cannot, with its plain 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    request_id = request_id_of(scope) or secrets.token_hex(16)
    body = msgspec.json.encode(
        HttpErrorBody(error=HttpErrorDetail(code=code, message=message, request_id=request_id))
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (REQUEST_ID_HEADER.encode(), request_id.encode()),
    ]
    start: Any = {"type": "websocket.http.response.start", "status": status, "headers": headers}
    await send(start)
    content: Any = {"type": "websocket.http.response.body", "body": body, "more_body": False}
    await send(content)


async def _converse(gateway: SignalingGateway, socket: PeerSocket, receive: Receive, send: Send) -> None:
    reading = asyncio.create_task(_read(gateway, socket, receive), name="signaling read")
    writing = asyncio.create_task(_write(gateway, socket, send), name="signaling write")
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, writing):
            task.cancel()
        await asyncio.wait({reading, writing})
        for task in (reading, writing):
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("signaling_failed", session_id=socket.room.session.session_id, exc_info=error)


async def _read(gateway: SignalingGateway, socket: PeerSocket, receive: Receive) -> None:
    rate = gateway.new_rate()
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        text = message.get("text")
        if _size(message) > gateway.limits.message_bytes:
            gateway.flooded(socket, f"a message of more than {gateway.limits.message_bytes} bytes")
        elif not rate.allows():
            gateway.flooded(socket, f"more than {gateway.limits.messages_per_second:g} messages a second")
        elif text is None:
            gateway.ignore("binary")
        else:
            await gateway.receive(socket, text)
        if socket.outbox.closing:
            # Nothing more is read; the writer closes the socket and so ends this task.
            await asyncio.Event().wait()


def _size(message: Any) -> int:
    """Bytes of a received message."""
    text = message.get("text")
    if text is None:
        return len(message.get("bytes") or b"")
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


async def _write(gateway: SignalingGateway, socket: PeerSocket, send: Send) -> None:
    try:
        while True:
            item = await socket.outbox.next()
            # A peer whose machine has vanished does not read: its socket is given up, not waited for.
            async with asyncio.timeout(gateway.limits.send_seconds):
                if isinstance(item, Close):
                    await send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                    return
                await send({"type": "websocket.send", "bytes": None, "text": item})
    except (OSError, TimeoutError):
        return  # the socket is gone; whoever reads it hears of that too
