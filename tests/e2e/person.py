"""A client of the end-to-end tests, with a session that works."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from voicethere.client import Session, SessionErrorEnvelope, connect_session, start_session
from voicethere.testing.platform_process import Deployed, RunningPlatform

ANSWER_SECONDS = 20.0


class Person:
    """One client with a session that works; use as a context."""

    def __init__(self, platform: RunningPlatform, deployed: Deployed) -> None:
        self.platform = platform
        self.deployed = deployed
        self.errors: list[SessionErrorEnvelope] = []
        self.told = asyncio.Event()
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.session: Session
        self.session_id = ""
        self.agent_pid = 0
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Person:
        started = await start_session(
            self.platform.base_url, self.deployed.project_id, api_key=self.deployed.client_key
        )
        assert started.ok, started
        assert started.credentials is not None
        self.session_id = started.credentials.session_id
        self.session = await self._stack.enter_async_context(
            connect_session(
                started.credentials, on_session_error=self._error, on_control_message=self.messages.put_nowait
            )
        )
        self.agent_pid = (await self.hears("started"))["pid"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _error(self, error: SessionErrorEnvelope) -> None:
        self.errors.append(error)
        self.told.set()

    async def hears(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            while (message := await self.messages.get()).get("type") != kind:
                pass
        return dict(message)

    async def talks(self, text: str) -> None:
        """Say something, and have it answered."""
        self.session.send_chat(text)
        assert (await self.hears("echo"))["text"] == text

    async def is_told(self) -> str:
        """The code of the one error that it is told."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.told.wait()
        assert len(self.errors) == 1
        return str(self.errors[0].code)
