"""`GET {base}/ws` as an ASGI app: who may listen before the upgrade, then frames out, nothing in.

Knows ASGI, and uvicorn as far as it must be told how to keep these sockets. Does not know what frames tell.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any
from urllib.parse import parse_qs

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from voicethere.adapters.http.errors import HttpProblem, invalid, not_found
from voicethere.adapters.http.plain_errors import ERROR_CODE_HEADER
from voicethere.adapters.http.request_ids import REQUEST_ID_HEADER, request_id_of
from voicethere.adapters.store.store import StoreUnavailable
from voicethere.roles.gateway.access import CHAT_PREFIX
from voicethere.roles.gateway.checks import conversation_id
from voicethere.roles.gateway.frame_queue import CatchUp, Close
from voicethere.roles.gateway.gateway import Gateway
from voicethere.roles.gateway.here import ChatSocket
from voicethere.wire.http import HttpErrorCode

SOCKET_ROUTE = "/c/{base}/ws"
PING_SECONDS = 20.0
SILENT_SECONDS = 600.0
"""A client that has not answered a ping for so long is dead: until then a slow one may be behind."""
MAX_INBOUND_BYTES = 64 * 1024
PAUSE_SECONDS = 0.05
"""Between two messages of a client, who has nothing to say: one that floods is read this slowly."""
AGAIN_SECONDS = 0.5

_PATH = re.compile(r"/c/(?P<base>[^/]{1,200})/ws/?")
_MAX_QUERY_FIELDS = 32

_log = structlog.get_logger(__name__)


class ChatWebSockets(WebSocketsSansIOProtocol):
    """uvicorn's sockets, patient with those of chats: a slow reader's pong comes late, behind what it has not
    read yet. For uvicorn's `ws` setting; sockets on other paths are as they were."""

    def start_keepalive(self) -> None:
        if self.scope["path"].startswith(CHAT_PREFIX):
            self.ping_interval, self.ping_timeout = PING_SECONDS, SILENT_SECONDS
            self.conn.max_message_size = MAX_INBOUND_BYTES
        super().start_keepalive()


def with_chat(app: ASGIApp, sockets: ASGIApp) -> ASGIApp:
    """One app for a server: chat's websockets go to `sockets`, everything else to `app`."""

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET and scope["path"].startswith(CHAT_PREFIX):
            await sockets(scope, receive, send)
        else:
            await app(scope, receive, send)

    return both


def chat_sockets(gateway: Gateway) -> ASGIApp:
    """The ASGI app of `/c/{base}/ws?conv_id=…` (websocket scopes only)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            socket = await _admitted(gateway, scope)
        except HttpProblem as problem:
            _log.info("chat_socket_refused", code=problem.code.value, reason=problem.message)
            await _deny(scope, send, problem)
            return
        except StoreUnavailable as problem:
            _log.warning("chat_socket_unanswered", reason=str(problem))
            await _deny(scope, send, _away())
            return
        project_id, conv_id = socket.key
        structlog.contextvars.bind_contextvars(project_id=project_id, conversation_id=conv_id)
        try:
            # Read before the socket opens: whoever sees it open is sent everything that happens from then on.
            begun = await _begin(gateway, socket)
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await _converse(gateway, socket, begun, receive, send)
        except StoreUnavailable as problem:
            _log.warning("chat_socket_unanswered", reason=str(problem))
            await _deny(scope, send, _away())
        except OSError:
            _log.info("chat_socket_abandoned")
        finally:
            gateway.here.leave(socket)
            structlog.contextvars.unbind_contextvars("project_id", "conversation_id")

    return app


async def _admitted(gateway: Gateway, scope: Any) -> ChatSocket:
    """Raises HttpProblem, StoreUnavailable."""
    found = _PATH.fullmatch(scope["path"])
    if found is None:
        raise HttpProblem(
            404, HttpErrorCode.NOT_FOUND, "There is no socket at this path: chats are at /c/{key}/ws."
        )
    caller = await gateway.access.admit(ASGIConnection(scope), found["base"])
    try:
        fields = parse_qs(
            scope["query_string"].decode("ascii"), max_num_fields=_MAX_QUERY_FIELDS, errors="strict"
        )
    except ValueError:
        raise invalid("The query string is malformed.") from None
    conv_id = conversation_id(fields.get("conv_id", [None])[-1])
    if caller.issued_only and not await gateway.is_issued(caller.project_id, conv_id):
        raise not_found("conversation")
    return gateway.open_socket(caller, conv_id)


def _away() -> HttpProblem:
    return HttpProblem(
        503,
        HttpErrorCode.UNAVAILABLE,
        "The conversation cannot be looked up now: try again in a moment.",
        headers={"Retry-After": "1"},
    )


async def _deny(scope: Scope, send: Send, problem: HttpProblem) -> None:
    """Refuse the upgrade with an HTTP answer for people; where the server cannot, with its plain 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:100]})
        return
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (ERROR_CODE_HEADER.encode(), problem.code.value.encode()),
        (REQUEST_ID_HEADER.encode(), (request_id_of(scope) or secrets.token_hex(16)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    start: Any = {"type": "websocket.http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    body: Any = {
        "type": "websocket.http.response.body",
        "body": problem.message.encode(),
        "more_body": False,
    }
    await send(body)


async def _begin(gateway: Gateway, socket: ChatSocket) -> list[str]:
    """How the conversation stands. Raises StoreUnavailable."""
    return await gateway.catch_up(socket) if isinstance(await socket.queue.next(), CatchUp) else []


async def _converse(
    gateway: Gateway, socket: ChatSocket, begun: list[str], receive: Receive, send: Send
) -> None:
    reading = asyncio.create_task(_read(receive), name="chat socket read")
    writing = asyncio.create_task(_write(gateway, socket, begun, send), name="chat socket write")
    tasks = {reading, writing}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("chat_socket_failed", exc_info=error)


async def _read(receive: Receive) -> None:
    """Until the socket is gone. What a client says means nothing, and is read no faster than it must be."""
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        await asyncio.sleep(PAUSE_SECONDS)


async def _write(gateway: Gateway, socket: ChatSocket, begun: list[str], send: Send) -> None:
    try:
        await _tell(socket, begun, send)
        while True:
            item = await socket.queue.next()
            if isinstance(item, Close):
                await send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                return
            if isinstance(item, CatchUp):
                await _tell(socket, await _latest(gateway, socket), send)
            else:
                await send({"type": "websocket.send", "bytes": None, "text": item})
    except OSError:
        return  # the socket is gone; whoever reads it hears of that too


async def _tell(socket: ChatSocket, texts: list[str], send: Send) -> None:
    for text in texts:
        if socket.queue.closing:
            return
        await send({"type": "websocket.send", "bytes": None, "text": text})


async def _latest(gateway: Gateway, socket: ChatSocket) -> list[str]:
    while not socket.queue.closing:
        try:
            return await gateway.catch_up(socket)
        except StoreUnavailable as problem:
            _log.warning("chat_socket_waits_for_the_database", reason=str(problem))
            await asyncio.sleep(AGAIN_SECONDS)
    return []
