"""Servers keep idle connections longer than clients do: no request goes out on one that is just closing."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from voicethere.cli import http_server
from voicethere.cli.running import Running


async def test_a_server_outwaits_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[Any] = []

    class Server(http_server._Server):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            configured.append(config)

    monkeypatch.setattr(http_server, "_Server", Server)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with Running.start() as running:
        listener = http_server.Listener(running, "127.0.0.1", 0)
        await http_server.serve_http(running, app, listener, settings={"lifespan": "off"})
        async with httpx.AsyncClient() as client, asyncio.timeout(10):
            assert (await client.get(listener.url)).status_code == 204
    kept_by_clients = httpx.Limits().keepalive_expiry
    assert kept_by_clients is not None
    assert configured[0].timeout_keep_alive > 2 * kept_by_clients
