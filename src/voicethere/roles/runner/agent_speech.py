"""What the agent of one session says, on its way to where the client gets it (`SpeechOutlet`).

The child gives each `speak` a number and hears what became of it; another child, after a crash, counts anew.
It does not know how speech reaches the client, nor when a session fails: the machine decides that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from voicethere.roles.runner.agent_events import Spoken
from voicethere.roles.runner.spoken_stream import Said
from voicethere.wire import ipc


class OpenStream(Protocol):
    """A text that is being written; it calls its `Said` once, when nothing more of it will be said."""

    @property
    def over(self) -> bool:
        """Said, or interrupted."""

    def feed(self, text: str) -> None:
        """The next piece of it."""

    def end(self, *, complete: bool) -> None:
        """That was all of it, or all that there will be."""

    def interrupt(self) -> None:
        """Say nothing more of it; harmless when it is over."""


class SpeechOutlet(Protocol):
    """Where speech goes: sound, messages, or a chat."""

    def say(self, text: str, said: Said | None = None) -> bool:
        """Say a text; False where it will not be."""

    def stream(self, said: Said) -> OpenStream:
        """Say a text that is yet to be written."""

    async def drained(self) -> None:
        """Return once nothing is left to be said, and no stream is open."""


class AgentSpeech:
    """`spoke(message)` is called for all that is said or will be."""

    def __init__(self, outlet: SpeechOutlet, *, spoke: Callable[[Spoken], None]) -> None:
        self._outlet = outlet
        self._spoke = spoke
        self._streams: dict[int, OpenStream] = {}
        self._over = False
        self._all_here = asyncio.Event()
        self._all_here.set()

    def take(self, spoken: Spoken, done: Said) -> None:
        """Handle a message of the child's. `done(interrupted)` tells this child of this `speak`."""
        match spoken:
            case ipc.Speak() | ipc.SpeakStart() if self._over:
                done(True)
            case ipc.Speak(text=text):
                self._outlet.say(text, done)
                self._spoke(spoken)
            case ipc.SpeakStart(speech_id=number):
                # Another child may have died before it ended its stream.
                self.interrupt()
                self._streams = {number: self._outlet.stream(done)}
                self._spoke(spoken)
            case ipc.SpeakText(speech_id=number, text=text):
                stream = self._streams.get(number)
                if stream is not None and not stream.over:
                    stream.feed(text)
                    self._spoke(spoken)
            case ipc.SpeakEnd(speech_id=number, complete=complete):
                stream = self._streams.pop(number, None)
                if stream is not None:
                    stream.end(complete=complete)
                elif not self._over:  # it was cut off before it began, and may not know yet
                    done(True)

    def hanging_up(self, *, more: bool) -> None:
        """The agent hangs up. `more` of what it said is with its child still, until this comes again."""
        if more:
            self._all_here.clear()
        else:
            self._all_here.set()

    def interrupt(self) -> None:
        """End the stream that is open."""
        for stream in self._streams.values():
            stream.interrupt()

    def close(self) -> None:
        """End the stream that is open, and say nothing any more."""
        self._over = True
        self._all_here.set()
        self.interrupt()

    async def drained(self) -> None:
        """Return once nothing is left to be said, here or in a child that hangs up, and no stream is open."""
        await self._all_here.wait()
        await self._outlet.drained()
