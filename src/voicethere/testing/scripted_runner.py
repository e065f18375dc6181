"""A runner for tests of the session service: hosts nothing, answers as it is told, remembers everything.

Works on any `RunnerLink`. It does not speak WebRTC and starts no agent.

Example:
    >>> runner = ScriptedRunner("r-1", capacity=2)
    >>> await runner.connect(lambda hello: EmbeddedRunnerLink.start(path, hello=hello))
    >>> assignment = await runner.heard(AssignSession)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from voicethere.core.ports import RunnerLink
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    EndSession,
    Heartbeat,
    RoomClosed,
    RunnerHello,
    SessionAccepted,
    SessionRefused,
    SignalToPeer,
    TokenWanted,
    ToRunner,
)
from voicethere.wire.session_api import FailureCode
from voicethere.wire.signaling import RUNNER_PEER_ID

M = TypeVar("M")

Hello = Callable[[], RunnerHello]


class Refusal(msgspec.Struct, frozen=True):
    """What a runner that refuses says."""

    code: FailureCode
    message: str = "The scripted runner refuses."


class ScriptedRunner:
    """`answer` is what happens to an assignment: True accepts, a `Refusal` refuses, None says nothing.

    `obeys_cancel`: whether a session that is cancelled, or ordered to end, is closed, as a real runner does.
    While it is `draining` it refuses what comes, whatever `answer` says.
    """

    def __init__(self, runner_id: str = "runner-1", *, capacity: int = 4) -> None:
        self.runner_id = runner_id
        self.capacity = capacity
        self.answer: bool | Refusal | None = True
        self.obeys_cancel = True
        self.draining = False
        self.sessions: list[str] = []
        self.received: list[ToRunner] = []
        self._changed = asyncio.Condition()
        self._link: RunnerLink | None = None
        self._reading: asyncio.Task[None] | None = None

    def hello(self) -> RunnerHello:
        """What its link says first."""
        return RunnerHello(
            runner_id=self.runner_id,
            capacity=self.capacity,
            sessions=list(self.sessions),
            draining=self.draining,
        )

    async def connect(self, make_link: Callable[[Hello], Awaitable[RunnerLink]]) -> None:
        """Link it to a session service."""
        self._link = await make_link(self.hello)
        self._reading = asyncio.create_task(self._read(self._link), name=f"scripted runner {self.runner_id}")

    async def aclose(self) -> None:
        """Cut the link for good, as a runner that dies does; its sessions stay in `sessions`."""
        if self._link is not None:
            await self._link.aclose()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def heard(
        self,
        kind: type[M],
        *,
        where: Callable[[M], bool] = lambda _: True,
        count: int = 1,
        seconds: float = 20.0,
    ) -> M:
        """The `count`th message of this kind, waited for.

        Raises:
            TimeoutError: it did not come within `seconds`.
        """

        def found() -> list[M]:
            return [m for m in self.received if isinstance(m, kind) and where(m)]

        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    # ------------------------------------------------------------------ what it says

    async def accept(self, session_id: str) -> None:
        """It hosts the session."""
        if session_id not in self.sessions:
            self.sessions.append(session_id)
        await self._send(SessionAccepted(session_id=session_id))

    async def signal(self, session_id: str, peer_id: str, text: str) -> None:
        """Signaling text for a peer."""
        await self._send(SignalToPeer(session_id=session_id, peer_id=peer_id, message=text))

    async def offer(self, session_id: str, room_id: str, peer_id: str, sdp: str = "v=0") -> str:
        """An offer for a peer; returns its text."""
        offer = {
            "type": "offer",
            "room": room_id,
            "peerId": RUNNER_PEER_ID,
            "targetPeerId": peer_id,
            "sdp": {"type": "offer", "sdp": sdp},
        }
        text = msgspec.json.encode(offer).decode()
        await self.signal(session_id, peer_id, text)
        return text

    async def close(self, session_id: str) -> None:
        """The session is over."""
        self.sessions.remove(session_id)
        await self._send(RoomClosed(session_id=session_id))

    async def want_token(self, session_id: str) -> None:
        """It asks for a fresh join token."""
        await self._send(TokenWanted(session_id=session_id))

    async def beat(self) -> None:
        """A heartbeat with what it hosts."""
        await self._send(Heartbeat(active=len(self.sessions), draining=self.draining))

    async def drain(self) -> None:
        """It is leaving, and says so."""
        self.draining = True
        await self.beat()

    # ------------------------------------------------------------------ what it hears

    async def _send(
        self,
        message: SessionAccepted | SessionRefused | SignalToPeer | RoomClosed | TokenWanted | Heartbeat,
    ) -> None:
        assert self._link is not None, "connect the scripted runner first"
        await self._link.send(message)

    async def _read(self, link: RunnerLink) -> None:
        async for message in link.messages():
            await self._react(message)
            async with self._changed:
                self.received.append(message)
                self._changed.notify_all()

    async def _react(self, message: ToRunner) -> None:
        if isinstance(message, AssignSession):
            if self.draining:
                await self._refuse(message.session_id, Refusal(FailureCode.RUNNER_UNAVAILABLE))
            elif self.answer is True:
                await self.accept(message.session_id)
            elif isinstance(self.answer, Refusal):
                await self._refuse(message.session_id, self.answer)
        elif (
            isinstance(message, CancelSession | EndSession)
            and self.obeys_cancel
            and message.session_id in self.sessions
        ):
            await self.close(message.session_id)

    async def _refuse(self, session_id: str, refusal: Refusal) -> None:
        await self._send(
            SessionRefused(session_id=session_id, failure_code=refusal.code, message=refusal.message)
        )
