"""A signaling socket with a fault in it: a WebSocket proxy that can cut, or take out every network path."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve


class SignalingProxy:
    """Passes signaling on to `target_url`. `url` is what a client is given instead.

    With `without_candidates` no address of either side comes through: ICE has nothing to try.
    """

    def __init__(self, target_url: str, *, without_candidates: bool = False) -> None:
        self._target_url = target_url
        self._without_candidates = without_candidates
        self._clients: set[ServerConnection] = set()
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SignalingProxy]:
        """Serve on a free port of this machine."""
        async with serve(self._pass_on, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}{urlsplit(self._target_url).path}"
            yield self

    def cut(self) -> None:
        """Drop every connection as a network does: without a goodbye."""
        for client in self._clients:
            client.transport.abort()

    async def _pass_on(self, client: ServerConnection) -> None:
        assert client.request is not None
        query = urlsplit(client.request.path).query
        self._clients.add(client)
        try:
            async with connect(f"{self._target_url}?{query}") as upstream:
                pumps = [
                    asyncio.create_task(self._pump(client, upstream)),
                    asyncio.create_task(self._pump(upstream, client)),
                ]
                _, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pending:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._clients.discard(client)

    async def _pump(self, source: Any, target: Any) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in source:
                passed = self._changed(message)
                if passed is not None:
                    await target.send(passed)

    def _changed(self, message: str | bytes) -> str | bytes | None:
        if not self._without_candidates:
            return message
        parsed = json.loads(message)
        if parsed.get("type") == "ice-candidate":
            return None
        if "sdp" in parsed:
            lines = parsed["sdp"]["sdp"].splitlines(keepends=True)
            parsed["sdp"]["sdp"] = "".join(line for line in lines if not line.startswith("a=candidate"))
        return json.dumps(parsed)
