"""A chat client without our runtime: plain HTTP and a plain WebSocket, which remembers every frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 30.0

Event = dict[str, Any]


def upsert(event: Event) -> dict[str, Any] | None:
    """The entity of a `timeline.upsert`; None of anything else."""
    found: dict[str, Any] | None = event["data"]["entity"] if event["type"] == "timeline.upsert" else None
    return found


def says(role: str, content: str) -> Callable[[Event], bool]:
    """Whether an event shows this message, complete."""

    def shown(event: Event) -> bool:
        entity = upsert(event)
        if entity is None or entity["kind"] != "message":
            return False
        props = entity["props"]
        return (props["role"], props["content"], props["streaming"]) == (role, content, False)

    return shown


def of_type(name: str) -> Callable[[Event], bool]:
    """Whether an event is of this type."""
    return lambda event: event["type"] == name


class Talker:
    """One socket on a conversation. `events` are all that came, in their order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[Event] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self._came = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(), name="talker")

    @property
    def numbered(self) -> list[Event]:
        """Those with a `seq`: what came live."""
        return [event for event in self.events if "seq" in event]

    async def _read(self) -> None:
        try:
            async for text in self.connection:
                event = json.loads(text)
                assert event["sem"] is True
                async with self._came:
                    self.events.append(event["event"])
                    self._came.notify_all()
        except ConnectionClosed:
            pass
        self.close_code = self.connection.close_code
        self.close_reason = self.connection.close_reason or ""
        async with self._came:
            self._came.notify_all()

    async def until(
        self, wanted: Callable[[Event], bool], *, since: int = 0, patience: float = PATIENCE
    ) -> Event:
        """The first event like this, from the event number `since` on."""
        looked = since
        async with asyncio.timeout(patience), self._came:
            while True:
                for event in self.events[looked:]:
                    if wanted(event):
                        return event
                looked = len(self.events)
                if self.close_code is not None:
                    raise AssertionError(f"the socket was closed: {self.close_code} {self.close_reason}")
                await self._came.wait()

    async def closed(self) -> int:
        """The code with which the gateway closed it."""
        async with asyncio.timeout(PATIENCE), self._came:
            while self.close_code is None:
                await self._came.wait()
            return self.close_code

    async def aclose(self) -> None:
        await self.connection.close()
        await self._reading


class ChatApi:
    """A gateway's base URL as a client uses it: `{base}/chat`, `{base}/api/timeline`, `{base}/ws`."""

    def __init__(self, base: str, *, headers: dict[str, str] | None = None) -> None:
        self.base = base
        self.headers = headers or {}
        self.http = httpx.AsyncClient(timeout=20.0, headers=self.headers)
        self._talkers: list[Talker] = []

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.post(self.base + path, **options)

    async def say(self, conv_id: str, prompt: str, **more: Any) -> httpx.Response:
        return await self.post("/chat", json={"prompt": prompt, "conv_id": conv_id, **more})

    async def accepted(self, conv_id: str, prompt: str, **more: Any) -> int:
        """The version of the conversation with the prompt in it."""
        answer = await self.say(conv_id, prompt, **more)
        assert answer.is_success, f"{answer.status_code}: {answer.text}"
        return int(answer.json()["version"])

    async def timeline(self, conv_id: str) -> dict[str, Any]:
        answer = await self.http.get(self.base + "/api/timeline", params={"conv_id": conv_id})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ws_url(self, conv_id: str) -> str:
        return f"{self.base.replace('http', 'ws', 1)}/ws?conv_id={quote(conv_id, safe='')}"

    async def listen(self, conv_id: str, **options: Any) -> Talker:
        connection = await connect(
            self.ws_url(conv_id), additional_headers=self.headers, compression=None, **options
        )
        talker = Talker(connection)
        self._talkers.append(talker)
        return talker

    async def aclose(self) -> None:
        for talker in self._talkers:
            await talker.aclose()
        await self.http.aclose()


def assert_numbered(events: list[Event]) -> None:
    """sem-chat: gapless `seq`, versions that grow."""
    seqs = [event["seq"] for event in events if "seq" in event]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
    versions = [int(event["data"]["version"]) for event in events if "seq" in event and upsert(event)]
    assert versions == sorted(set(versions))


def assert_numbered_or_told_anew(events: list[Event]) -> None:
    """sem-chat: the same where frames may be lost between gateways, of which one dies: where `seq` has a gap,
    the latest entities were told before it goes on."""
    seq, told_anew = None, False
    for event in events:
        if "seq" not in event:
            told_anew = True
            continue
        assert seq is None or event["seq"] == seq + 1 or (told_anew and event["seq"] > seq)
        seq, told_anew = event["seq"], False
    versions = [int(event["data"]["version"]) for event in events if "seq" in event and upsert(event)]
    assert versions == sorted(set(versions))
