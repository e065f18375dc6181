"""uvicorn inside a process that has more to do: a listener made beforehand, no signal handlers of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

import uvicorn

from voicethere.cli.running import Running

GRACE_SECONDS = 3.0
"""How long requests that are under way at the end may take, where nobody said more."""

App = Any
"""An ASGI app: every framework has its own type of it."""

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than clients keep theirs (httpx: 5 s). Where both let go at the
same time, a request may go out on one that is just being closed, and nobody can tell whether it arrived."""


class Listener:
    """A port that is ours from now on. Port 0 takes a free one.

    Raises:
        OSError: the address cannot be used; the words name it.
    """

    def __init__(self, running: Running, host: str, port: int) -> None:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.create_server((host, port), family=family, reuse_port=False, backlog=512)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        running.stack.callback(self.socket.close)
        bound, number = self.socket.getsockname()[:2]
        self.url = f"http://{_url_host(host, bound)}:{number}"
        """How this machine reaches it."""


async def serve_http(
    running: Running,
    app: App,
    listener: Listener,
    *,
    name: str = "HTTP server",
    settings: Mapping[str, Any] | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Serve `app` until the end; returns once it does.

    At the end nothing new is taken, and what is under way may take `grace_seconds`, unless somebody hurries.
    `settings` are further ones of uvicorn.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
            server_header=False,
            **(settings or {}),
        )
    )

    async def hurry() -> None:
        await running.hurried.wait()
        server.force_exit = True

    hurrying = asyncio.create_task(hurry(), name=f"{name} hurry")

    async def serve() -> None:
        try:
            await server.serve(sockets=[listener.socket])
        finally:
            hurrying.cancel()

    def stop() -> None:
        server.should_exit = True

    await running.role(name, serve(), stop)
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
