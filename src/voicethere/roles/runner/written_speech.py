"""Speech without sound, where the words themselves are the speech: in data sessions and in chats.

Both are over as soon as they are written: there is nothing to wait for, and nobody talks over them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Protocol

from voicethere.core.sentences import SentenceCutter
from voicethere.roles.runner.agent_speech import OpenStream
from voicethere.roles.runner.spoken_stream import Said


class ChatLeg(Protocol):
    """What the client's leg of a chat session takes of speech; each has a number of its own."""

    def message(self, speech_id: int, text: str) -> None:
        """The agent says `text`."""

    def stream_started(self, speech_id: int) -> None:
        """It begins to say something that is yet to be written."""

    def stream_text(self, speech_id: int, text: str) -> None:
        """The next piece of it."""

    def stream_ended(self, speech_id: int, complete: bool) -> None:
        """That was all of it."""


class AnnouncedSpeech:
    """For data sessions: `announce(text)` tells the client what is said, a stream sentence by sentence."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._stream: _WrittenStream | None = None

    def say(self, text: str, said: Said | None = None) -> bool:
        self._announce(text)
        if said is not None:
            said(False)
        return True

    def stream(self, said: Said) -> OpenStream:
        cutter = SentenceCutter()

        def announce(sentences: list[str]) -> None:
            for sentence in sentences:
                if words := sentence.strip():
                    self._announce(words)

        self._stream = _WrittenStream(
            said,
            write=lambda text: announce(cutter.feed(text)),
            end=lambda complete: announce([cutter.finish()]),
        )
        return self._stream

    async def drained(self) -> None:
        await _written(lambda: self._stream)


class ChatSpeech:
    """For chats: messages on the leg, a stream as it comes."""

    def __init__(self, leg: ChatLeg) -> None:
        self._leg = leg
        # Not the child's numbers: one that takes its place after a crash begins anew.
        self._numbers = itertools.count(1)
        self._stream: _WrittenStream | None = None

    def say(self, text: str, said: Said | None = None) -> bool:
        self._leg.message(next(self._numbers), text)
        if said is not None:
            said(False)
        return True

    def stream(self, said: Said) -> OpenStream:
        speech_id = next(self._numbers)
        self._leg.stream_started(speech_id)
        self._stream = _WrittenStream(
            said,
            write=lambda text: self._leg.stream_text(speech_id, text),
            end=lambda complete: self._leg.stream_ended(speech_id, complete),
        )
        return self._stream

    async def drained(self) -> None:
        await _written(lambda: self._stream)


class _WrittenStream:
    """`end(complete)` is called once, whatever ends it."""

    def __init__(self, said: Said, *, write: Callable[[str], None], end: Callable[[bool], None]) -> None:
        self._said = said
        self._write = write
        self._end = end
        self.ended = asyncio.Event()

    @property
    def over(self) -> bool:
        return self.ended.is_set()

    def feed(self, text: str) -> None:
        if not self.over:
            self._write(text)

    def end(self, *, complete: bool) -> None:
        if not self.over:
            self.ended.set()
            self._end(complete)
            self._said(not complete)

    def interrupt(self) -> None:
        self.end(complete=False)


async def _written(open_stream: Callable[[], _WrittenStream | None]) -> None:
    while (stream := open_stream()) is not None and not stream.over:
        await stream.ended.wait()
