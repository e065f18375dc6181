"""Everything that one client of a demonstration hears of: errors, messages, speech events, sound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from voicethere.client import BufferSink, SessionErrorEnvelope
from voicethere.wire.control_channel import SpeechEvent, SpeechEventType

STEP_SECONDS = 20.0
T = TypeVar("T")


class DidNotHappen(Exception):
    """Something that should have happened did not; the words say what."""


class _Sound(BufferSink):
    """What is heard; every piece of it is news."""

    def __init__(self, news: asyncio.Event) -> None:
        super().__init__()
        self._news = news

    def write(self, pcm: bytes, sample_rate: int) -> None:
        super().write(pcm, sample_rate)
        self._news.set()


class Ears:
    """Everything that one client hears of."""

    def __init__(self) -> None:
        self.errors: list[tuple[float, SessionErrorEnvelope]] = []
        self.speech: list[SpeechEvent] = []
        self.messages: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self.sound = _Sound(self._changed)

    def on_error(self, error: SessionErrorEnvelope) -> None:
        self.errors.append((time.monotonic(), error))
        self._changed.set()

    def on_speech_event(self, event: SpeechEvent) -> None:
        self.speech.append(event)
        self._changed.set()

    def on_message(self, message: Any) -> None:
        if isinstance(message, dict):
            self.messages.append(message)
        self._changed.set()

    def final(self) -> str | None:
        """What the platform recognized."""
        for event in self.speech:
            if event.event is SpeechEventType.USER_SPEECH_FINAL and isinstance(event.text, str):
                return event.text
        return None

    def message(self, kind: str) -> dict[str, Any] | None:
        """The first message of this `type`."""
        return next((message for message in self.messages if message.get("type") == kind), None)

    async def until(self, what: str, look: Callable[[], T | None], *, seconds: float = STEP_SECONDS) -> T:
        """Wait until `look` finds something.

        Raises:
            DidNotHappen: it did not, within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                while (found := look()) is None:
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise DidNotHappen(f"{what} did not happen within {seconds:g} s") from None
