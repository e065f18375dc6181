"""One client of the soak: starts a session, does one thing in it, and checks what became of it.

What it was told and what is stored must be exactly what it caused; a session that has ended must show both.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from tools.soak.account import Account
from tools.soak.settling import PATIENCE, Surprise, settle
from voicethere.client import (
    PcmQueue,
    Session,
    SessionErrorEnvelope,
    connect_session,
    start_session,
)
from voicethere.testing.platform_process import Deployed, Operator

_LONGEST = 90.0
"""A session that ends by itself: the shortest idle limit, the agent's good bye, and some patience."""
_ANSWERS = ("user_speech_final", "user_stt_not_found")
_MOST_ATTEMPTS = 4
_ANSWER_SECONDS = 8.0
REJOIN_DELAYS = (0.2, 0.4, 0.8, 1.6)


class World:
    """What all callers share. `hello` is somebody saying just that, in PCM of `hello_rate` Hz."""

    def __init__(
        self,
        *,
        services: list[str],
        chats: list[str],
        operator: Operator,
        http: httpx.AsyncClient,
        account: Account,
        hello: bytes,
        hello_rate: int,
    ) -> None:
        self.operator = operator
        self.http = http
        self.account = account
        self.hello = hello
        self.hello_rate = hello_rate
        self._services = itertools.cycle(services)
        self._chats = itertools.cycle(chats)

    def service(self) -> str:
        """The next session service's address, in turn."""
        return next(self._services)

    def chat_gateway(self) -> str:
        """The next chat gateway's address, in turn."""
        return next(self._chats)


class _Quiet:
    """A speaker that keeps nothing but how much it heard."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, pcm: bytes, sample_rate: int) -> None:
        self.bytes += len(pcm)


class Caller:
    """Made for one session."""

    def __init__(self, world: World, deployed: Deployed) -> None:
        self._world = world
        self._deployed = deployed
        self.told: list[str] = []
        self.microphone = PcmQueue(world.hello_rate)
        self.speaker = _Quiet()
        self.agent_pid = 0
        self.session_id = ""
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._passed_over: deque[str] = deque(maxlen=8)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connected, and the agent has said which process it is."""
        started = await start_session(
            self._world.service(),
            self._deployed.project_id,
            api_key=self._deployed.client_key,
            http=self._world.http,
            timeout=PATIENCE,
            poll_interval=0.25,
        )
        if started.credentials is None:
            raise Surprise(f"no session: {started.code}: {started.message}")
        self.session_id = started.session_id
        audio = started.credentials.mode.has_audio
        async with connect_session(
            started.credentials,
            customer_context={"userId": "u_123"},
            on_session_error=self._hear_error,
            on_control_message=self._hear,
            microphone=self.microphone if audio else None,
            speaker=self.speaker if audio else None,
            rejoin_delays=REJOIN_DELAYS,
        ) as session:
            self.agent_pid = int((await self.hears("started"))["pid"])
            yield session

    def _hear_error(self, error: SessionErrorEnvelope) -> None:
        self.told.append(str(error.code))

    def _hear(self, message: object) -> None:
        if isinstance(message, dict):
            self._messages.put_nowait(message)

    async def hears(
        self, kind: str, good: Callable[[dict[str, Any]], bool] = lambda _: True, within: float = PATIENCE
    ) -> dict[str, Any]:
        """The next good message of this type; others are passed over."""
        try:
            async with asyncio.timeout(within):
                while True:
                    message = await self._messages.get()
                    if message.get("type") == kind and good(message):
                        return message
                    self._passed_over.append(str(message.get("event") or message.get("type")))
        except TimeoutError:
            heard = f"told: {self.told}, last heard: {list(self._passed_over)}"
            raise Surprise(f"heard no {kind} within {within:g} s; {heard}") from None

    async def chats(self, session: Session, text: str) -> None:
        """Say it, and hear it back."""
        session.send_chat(text)
        await self.hears("echo", lambda message: message["text"] == text)

    async def chats_until_heard(self, session: Session, text: str) -> None:
        """Say it again where no answer comes: what is on its way when a connection goes is lost with it."""
        for _ in range(_MOST_ATTEMPTS - 1):
            session.send_chat(text)
            try:
                await self.hears("echo", lambda message: message["text"] == text, _ANSWER_SECONDS)
            except Surprise:
                self._world.account.requests["said again after a loss"] += 1
            else:
                return
        await self.chats(session, text)

    async def is_understood(self) -> None:
        """Say hello until it is understood: as a person would, who is told that it was not."""
        for _ in range(_MOST_ATTEMPTS):
            self.microphone.say(self._world.hello)
            heard = await self.hears("speech_event", lambda message: message["event"] in _ANSWERS)
            if heard["event"] == _ANSWERS[0]:
                return
            self._world.account.requests["not understood at once"] += 1
        raise Surprise(f"was not understood {_MOST_ATTEMPTS} times in a row")

    async def over(self, session: Session) -> None:
        """Wait until the session has ended by itself."""
        try:
            async with asyncio.timeout(_LONGEST):
                await session.closed
        except TimeoutError:
            raise Surprise(f"did not end within {_LONGEST:g} s; told: {self.told}") from None

    async def settle(self, *, told: list[str], stored: list[str], reason: str, repeats: bool = False) -> None:
        """Wait for the session's end in the API; the client must have been told `told`, and stored `stored`.

        With `repeats` the client may have been told each several times.

        Raises:
            Surprise: it did not end, or not so.
        """
        await settle(
            self._world.operator,
            self._deployed.project_id,
            self.session_id,
            stored=stored,
            reason=reason,
        )
        heard = list(dict.fromkeys(self.told)) if repeats else self.told
        if heard != told:
            raise Surprise(f"the client was told {self.told}, not {told}")
