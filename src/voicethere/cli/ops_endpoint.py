"""The ops endpoint of a process: `/healthz`, `/readyz`, `/metrics`, on a port of its own.

- `/healthz`: 200 as long as the event loop turns; it asks nobody else. Restart what does not answer it.
- `/readyz`: 200, or 503 with JSON that names each dependency and what is wrong. Send no work there then.
- `/metrics`: Prometheus text.

It begins before the role does and ends after it: what is missing at the start can be seen, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from voicethere.adapters.telemetry.loop_lag import LoopLag
from voicethere.adapters.telemetry.metrics import CONTENT_TYPE, Metrics
from voicethere.cli.http_server import Listener, serve_http
from voicethere.cli.ops_readiness import Readiness
from voicethere.cli.running import Running

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SETTINGS = {"ws": "none", "lifespan": "off"}


class OpsEndpoint:
    """An ASGI app."""

    def __init__(self, readiness: Readiness, metrics: Metrics, lag: LoopLag) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._lag = lag

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        status, kind, body = await self._answer(scope["method"], scope["path"])
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, "application/json", b'{"error":"only GET is allowed here"}'
        if path == "/healthz":
            alive = {"alive": True, "loop_lag_seconds": round(self._lag.last, 4)}
            return 200, "application/json", msgspec.json.encode(alive)
        if path == "/readyz":
            report = await self._readiness.report()
            return 200 if report.ready else 503, "application/json", msgspec.json.encode(report)
        if path == "/metrics":
            return 200, CONTENT_TYPE, await self._metrics.text()
        return 404, "application/json", b'{"error":"there are /healthz, /readyz and /metrics"}'


async def serve_ops(
    running: Running, listener: Listener, *, readiness: Readiness, metrics: Metrics, lag: LoopLag
) -> None:
    """Serve it until everything else has ended."""
    app = OpsEndpoint(readiness, metrics, lag)
    await serve_http(running, app, listener, name="ops endpoint", settings=_SETTINGS, grace_seconds=1.0)
