"""uvicorn inside a process that has more to do: a listener made beforehand, no signal handlers of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

import uvicorn
from litestar.types import ASGIApp

from voicethere.cli.running import Running
from voicethere.roles.sessions.signaling import UVICORN_SETTINGS, JoinTokenFilter

_GRACE_SECONDS = 3


class Listener:
    """A port that is ours from now on. Port 0 takes a free one.

    Raises:
        OSError: the address cannot be used.
    """

    def __init__(self, running: Running, host: str, port: int) -> None:
        self.socket = socket.create_server((host, port), reuse_port=False, backlog=512)
        running.stack.callback(self.socket.close)
        bound, number = self.socket.getsockname()[:2]
        self.url = f"http://{_url_host(host, bound)}:{number}"
        """How this machine reaches it."""


async def serve_http(running: Running, app: ASGIApp, listener: Listener) -> None:
    """Serve `app` until the end; returns once it does."""
    logging.getLogger("uvicorn.error").addFilter(JoinTokenFilter())
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            server_header=False,
            **UVICORN_SETTINGS,
        )
    )

    def stop() -> None:
        server.should_exit = True

    await running.role("HTTP server", server.serve(sockets=[listener.socket]), stop)
    await server.listening.wait()


class _Server(uvicorn.Server):
    """Without uvicorn's signal handlers: the process has its own. `listening` is set once it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _url_host(asked: str, bound: str) -> str:
    if asked in ("0.0.0.0", "::", ""):  # noqa: S104 - a comparison, nothing is bound here
        return "127.0.0.1"
    return f"[{bound}]" if ":" in bound else bound
