"""The Python end of the page's `call`: starts it and waits for what it sees. A wait that fails shows it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from playwright.async_api import Browser, Page
from playwright.async_api import TimeoutError as Timeout

from voicethere.testing.platform_process import Deployed, RunningPlatform

SECONDS = 20.0
SOUND = 0.01
"""The rms above which a piece of audio counts as sound."""

Event = dict[str, Any]


class Caller:
    """A call from one page. An event is what `note` in the page's script makes; patterns are parts of one."""

    def __init__(self, page: Page, platform: RunningPlatform) -> None:
        self.page = page
        self._platform = platform

    async def prepare(
        self,
        deployed: Deployed,
        *,
        hello: dict[str, Any] | None = None,
        microphone: bool = False,
        start: Mapping[str, Any] | None = None,
    ) -> str:
        """Provision a session; its id. `start` are further fields of `POST /v1/sessions`."""
        await self.page.evaluate(
            "options => newCall(options)",
            {
                "baseUrl": self._platform.base_url,
                "key": deployed.client_key,
                "start": {"project_id": deployed.project_id, **(start or {})},
                "hello": hello,
                "microphone": microphone,
            },
        )
        credentials = await self.page.evaluate("() => call.provision()")
        session_id: str = credentials["session_id"]
        return session_id

    async def connect(self, leg: int = 1) -> None:
        """Join, and wait until the peer is connected, both channels are open and the hello is said."""
        await self.page.evaluate("() => call.join()")
        await self.event("connection", leg=leg, state="connected")
        await self.event("channel-open", leg=leg, label="voice-control", ordered=True)
        await self.event("channel-open", leg=leg, label="voicethere-sync", ordered=False)
        await self.event("settled", leg=leg)

    async def send(self, message: dict[str, Any]) -> None:
        """A JSON message on voice-control."""
        await self.page.evaluate("message => call.send(message)", message)

    async def chat(self, text: str) -> None:
        """A user's text turn."""
        await self.send({"type": "chat", "text": text})

    async def event(self, kind: str, **pattern: Any) -> Event:
        """The first event of this kind that has all of `pattern`, as soon as there is one."""
        wanted = {"kind": kind, **pattern}
        found: Event = await self._until(f"the event {wanted}", "wanted => call.find(wanted)", wanted)
        return found

    async def message(self, kind: str, **fields: Any) -> Event:
        """The first message of this `type` on voice-control, as it came."""
        event = await self.event("message", label="voice-control", message={"type": kind, **fields})
        message: Event = event["message"]
        return message

    async def sound_after(self, moment: float) -> float:
        """When (on the page's clock, ms) sound was first measured after `moment`."""
        loud = "([after, sound]) => call.loudness.find(([at, rms]) => at > after && rms > sound)"
        found = await self._until(f"sound after {moment:.0f} ms", loud, [moment, SOUND])
        return float(found[0])

    async def loudness(self, *, before: float) -> list[float]:
        """Every rms measured before that moment."""
        measured = await self.page.evaluate("() => call.loudness")
        return [rms for at, rms in measured if at < before]

    async def events(self) -> list[Event]:
        """All of them, in order."""
        seen: list[Event] = await self.page.evaluate("() => call.events")
        return seen

    async def _until(self, what: str, look: str, wanted: Any) -> Any:
        try:
            found = await self.page.wait_for_function(look, arg=wanted, polling=10, timeout=SECONDS * 1000)
        except Timeout:
            seen = "\n".join(json.dumps(event)[:300] for event in await self.events())
            pytest.fail(f"the page did not see {what} within {SECONDS:g} s; it saw:\n{seen}", pytrace=False)
        return await found.json_value()


@contextlib.asynccontextmanager
async def calling_page(browser: Browser, origin: str, platform: RunningPlatform) -> AsyncIterator[Caller]:
    """The page, fresh, in a context of its own. Whatever fails inside it fails the test."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(origin, wait_until="load")
        caller = Caller(page, platform)
        yield caller
        seen = await page.evaluate("() => window.call ? call.events : []")
        problems += [event["error"] for event in seen if event["kind"] == "page-failed"]
        assert problems == [], "the page itself failed"
    finally:
        await context.close()
