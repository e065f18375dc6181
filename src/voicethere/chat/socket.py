"""One WebSocket of a conversation: opened, read to its end, and its end put into words.

Knows frames as bytes on a wire; not what is in them, nor what its end means to a conversation.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from voicethere.chat.http import failure_words
from voicethere.chat.limits import ChatLimits, ChatTimings
from voicethere.errors.bounds import cut_end, sanitise

_ABNORMAL = 1006
_MAX_QUEUED_FRAMES = 4
_CLOSE_SECONDS = 1.0
_BREATH_FRAMES = 64
_BREATH_BYTES = 1024 * 1024
_TRY_LATER = frozenset({408, 425, 429})


class SocketEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a socket ended that nobody here closed.

    `failed`: with an error, rather than with the server's goodbye or none. `code` and `reason` are those of
    the close, 1006 where there was none. `status` is the HTTP status that refused the socket. `hopeless`: the
    server will say the same the next time, as to a wrong key.
    """

    failed: bool
    opened: bool
    message: str
    code: int = _ABNORMAL
    reason: str = ""
    status: int | None = None
    hopeless: bool = False


class _Connect(connect):
    """Follows no redirect: what is read here must come from whom it was asked."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class ChatSocket:
    """A socket that is read once."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        limits: ChatLimits,
        timings: ChatTimings,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._headers = headers
        self._limits = limits
        self._timings = timings
        self._ssl_context = ssl_context

    async def read(
        self, on_open: Callable[[], None], on_frame: Callable[[str | bytes], Awaitable[None]]
    ) -> SocketEnd:
        """Open the socket, give each frame (binary ones as bytes) to `on_frame`, and tell how it ended.

        The next frame is read when `on_frame` has returned. What is raised is `on_frame`'s or `on_open`'s;
        the socket is closed then, and where this is cancelled.
        """
        secure = self._ssl_context is not None and self._url.startswith("wss:")
        tls: dict[str, Any] = {"ssl": self._ssl_context} if secure else {}
        try:
            opening = _Connect(
                self._url,
                additional_headers=dict(self._headers),
                open_timeout=self._timings.open_timeout,
                ping_interval=self._timings.ping_interval,
                ping_timeout=self._timings.ping_interval,
                close_timeout=_CLOSE_SECONDS,
                max_size=self._limits.frame_bytes,
                max_queue=_MAX_QUEUED_FRAMES,
                **tls,
            )
            socket = await opening
        except (OSError, EOFError, WebSocketException) as error:
            return _not_opened(error)
        try:
            on_open()
            return await _read_all(socket, on_frame)
        finally:
            # In a task of its own: before Python 3.11.3 a time limit (that of the goodbye) does nothing in a
            # task that was cancelled, and the socket would stay.
            await asyncio.wait([asyncio.create_task(socket.close(), name="chat socket closing")])


async def _read_all(
    socket: ClientConnection, on_frame: Callable[[str | bytes], Awaitable[None]]
) -> SocketEnd:
    frames = length = 0
    while True:
        try:
            frame = await socket.recv()
        except ConnectionClosed as closed:
            return _ended(closed)
        await on_frame(frame)
        frames, length = frames + 1, length + len(frame)
        if frames >= _BREATH_FRAMES or length >= _BREATH_BYTES:
            # Reading what is there already does not suspend: a flood would starve everyone else.
            frames = length = 0
            await asyncio.sleep(0)


def _not_opened(error: Exception) -> SocketEnd:
    if isinstance(error, InvalidStatus):
        response = error.response
        status = response.status_code
        words = f"the socket was refused ({status})"
        if "Location" in response.headers:
            location = cut_end(sanitise(response.headers["Location"]), 300)
            words = (
                f"the socket was redirected ({status}) to {location}, which is not followed: "
                "use the gateway's own address as base URL"
            )
        else:
            text = sanitise(bytes(response.body[:4096]).decode("utf-8", "replace")).strip()
            words += f": {text}" if text else ""
        hopeless = 300 <= status < 500 and status not in _TRY_LATER
        return SocketEnd(failed=True, opened=False, message=words, status=status, hopeless=hopeless)
    return SocketEnd(
        failed=True,
        opened=False,
        message=f"the socket could not be opened: {failure_words(error)}",
        hopeless=isinstance(error, (InvalidURI, InvalidProxy, ssl.SSLCertVerificationError)),
    )


def _ended(closed: ConnectionClosed) -> SocketEnd:
    received, sent = closed.rcvd, closed.sent
    if received is not None and (sent is None or closed.rcvd_then_sent):
        reason = sanitise(received.reason)
        words = f"the server closed the connection ({received.code}{': ' + reason if reason else ''})"
        return SocketEnd(failed=False, opened=True, message=words, code=received.code, reason=reason)
    if sent is not None:
        # This end gave it up: a frame that is too large or none at all, or pings that stay without answer.
        reason = sanitise(sent.reason)
        words = f"the connection was given up ({int(sent.code)}{': ' + reason if reason else ''})"
        return SocketEnd(failed=True, opened=True, message=words, code=int(sent.code), reason=reason)
    if isinstance(closed.__cause__, OSError):
        words = f"the connection was lost: {failure_words(closed.__cause__)}"
        return SocketEnd(failed=True, opened=True, message=words)
    return SocketEnd(failed=False, opened=True, message=f"the connection was lost ({_ABNORMAL})")
