"""A sandbox whose children are objects of the test: they speak the agent's protocol, and do as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from voicethere.core.ports import ChildExit, ChildProcess, ChildSpec, Mechanism, OutputLine
from voicethere.wire import ipc

Message = TypeVar("Message")


class ScriptedChild:
    """Answers what every agent's child answers; `got` is all that it was sent, but for pings.

    `starts` is whether its `on_session_start` returns by itself, `handles` whether its other hooks do.
    """

    def __init__(
        self, spec: ChildSpec, pid: int, hooks: Sequence[str], *, loads: bool, starts: bool = True
    ) -> None:
        self.spec = spec
        self.pid = pid
        self.got: list[ipc.ToChild] = []
        self.killed = False
        self.starts = starts
        self.handles = True
        self._hooks = hooks
        self._loads = loads
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ended: asyncio.Future[ChildExit] = asyncio.get_running_loop().create_future()
        self._speeches = 0

    # -- what a test does with it

    def say(self, message: ipc.FromChild) -> None:
        """The agent sends a message."""
        self._frames.put_nowait(ipc.encode(message))

    def speak(self, text: str, session_id: str = "s") -> int:
        """The agent calls `speak`; the number is the one of its `SpeechDone`."""
        self._speeches += 1
        self.say(ipc.Speak(session_id=session_id, speech_id=self._speeches, text=text))
        return self._speeches

    def begin_stream(self, session_id: str = "s") -> int:
        """The agent calls `speak` with a stream."""
        self._speeches += 1
        self.say(ipc.SpeakStart(session_id=session_id, speech_id=self._speeches))
        return self._speeches

    def write(self, speech_id: int, text: str, session_id: str = "s") -> None:
        """More of the stream."""
        self.say(ipc.SpeakText(session_id=session_id, speech_id=speech_id, text=text))

    def end_stream(self, speech_id: int, session_id: str = "s", *, complete: bool = True) -> None:
        """The stream is over."""
        self.say(ipc.SpeakEnd(session_id=session_id, speech_id=speech_id, complete=complete))

    def begin_hook(self, session_id: str = "s") -> None:
        """The agent begins with a message of the client's."""
        self.say(ipc.HandlerStarted(session_id=session_id, hook="on_data_channel_message"))

    def end_hook(self, session_id: str = "s") -> None:
        """It is done with it."""
        self.say(ipc.HandlerFinished(session_id=session_id, hook="on_data_channel_message"))

    def die(self, *, signal: int = 9) -> None:
        """The process is killed."""
        if not self._ended.done():
            self._ended.set_result(ChildExit(signal=signal))
            self._frames.put_nowait(None)

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.got if isinstance(message, kind)]

    def heard(self) -> list[str]:
        """The speech events that the agent was told."""
        return [message.event.value for message in self.of(ipc.SpeechEventMessage)]

    # -- a ChildProcess

    async def send(self, frame: bytes) -> None:
        message = ipc.decode_to_child(frame)
        if not isinstance(message, ipc.Ping):
            self.got.append(message)
        match message:
            case ipc.Ping(n=n):
                self.say(ipc.Pong(n=n))
            case ipc.LoadAgent() if self._loads:
                self.say(ipc.AgentLoaded(hooks=list(self._hooks), commands=["hello"]))
            case ipc.LoadAgent():
                self.say(ipc.AgentLoadFailed(stage="import", message="ImportError: no", stack="…"))
                self.die()
            case ipc.SessionStart(session_id=session_id) if self.starts:
                self.say(ipc.SessionStartAck(session_id=session_id))
            case ipc.DataChannelMessage(session_id=session_id) if self.handles:
                self.begin_hook(session_id)
                self.end_hook(session_id)
            case ipc.SessionEnd(session_id=session_id):
                self.say(ipc.SessionEndAck(session_id=session_id))

    async def frames(self) -> AsyncIterator[bytes]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def output(self) -> AsyncIterator[OutputLine]:
        for line in ():
            yield line

    async def wait(self) -> ChildExit:
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        self.killed = True
        self.die()

    async def aclose(self) -> None:
        self.kill()


class ScriptedSandbox:
    """`children` are those that were started, oldest first.

    `loads`: whether their bundles can be loaded; `starts` as for a child; `seconds` is what a start takes.
    """

    def __init__(self, hooks: Sequence[str] = ("on_data_channel_message",), *, loads: bool = True) -> None:
        self.children: list[ScriptedChild] = []
        self.hooks = hooks
        self.loads = loads
        self.starts = True
        self.seconds = 0.0

    async def start(self, spec: ChildSpec) -> ChildProcess:
        await asyncio.sleep(self.seconds)
        child = ScriptedChild(
            spec, 1000 + len(self.children), self.hooks, loads=self.loads, starts=self.starts
        )
        self.children.append(child)
        return child

    def mechanisms(self) -> Sequence[Mechanism]:
        return []

    async def aclose(self) -> None:
        for child in self.children:
            await child.aclose()
