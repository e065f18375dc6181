"""The SDK's functions on their way to the runner (`process.Link`), from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any

from voicethere.agent.log_lines import log_line
from voicethere.agent.session_speech import SessionSpeech
from voicethere.agent.speech import Speech, SpeechOutcome
from voicethere.agent.speeches import Speeches, settled
from voicethere.agent.text_stream import TextStream
from voicethere.wire.ipc import (
    DisconnectClient,
    FromChild,
    SendBinaryToClient,
    SendToClient,
    SpeechDone,
)

_MAX_REMEMBERED = 100
_CLOSE_SECONDS = 1.0
"""How long the streams of a session that ends may take to be closed."""

ReportFailure = Callable[[str | None, str, BaseException], None]
"""`(session_id, hook, error)`, on the event loop."""


class RunnerLink:
    """Sends for sessions that are live; for others nothing but one line in the log each."""

    def __init__(self, send: Callable[[FromChild], None], loop: asyncio.AbstractEventLoop) -> None:
        self._send = send
        self._loop = loop
        self._live: dict[str, SessionSpeech] = {}
        self._speeches = Speeches()
        self._complained_of: set[tuple[str, str]] = set()
        self._report: ReportFailure | None = None

    def report_failures(self, report: ReportFailure) -> None:
        """Whom a stream that raises is reported to, with `speak` as the hook."""
        self._report = report

    def session_began(self, session_id: str) -> None:
        """From now on its client can be spoken and sent to."""
        self._live[session_id] = SessionSpeech(
            session_id,
            loop=self._loop,
            send=self._send,
            speeches=self._speeches,
            failed=lambda started_in, error: self._stream_failed(session_id, started_in, error),
        )

    def session_ends(self, session_id: str) -> None:
        """Nothing is spoken any more; what was still being said is interrupted. Messages may yet pass."""
        self._live[session_id].end()
        self._speeches.session_over(session_id)

    async def streams_closed(self, session_id: str) -> None:
        """Return when what the session streamed is closed; what does not let itself be is told, and left."""
        left = await self._live[session_id].closed(_CLOSE_SECONDS)
        if left:
            words = f"{left} streams given to speak() go on, though they were cancelled as the session ended"
            self.log("warn", words, None, session_id)

    def session_over(self, session_id: str) -> None:
        """`on_session_end` is done: nothing of this session is sent any more."""
        del self._live[session_id]

    def speech_done(self, message: SpeechDone) -> None:
        """The runner says what became of a `speak`."""
        outcome = SpeechOutcome.INTERRUPTED if message.interrupted else SpeechOutcome.PLAYED
        self._speeches.done(message.session_id, message.speech_id, outcome)
        speech = self._live.get(message.session_id)
        if message.interrupted and speech is not None:
            speech.interrupted(message.speech_id)

    # -- process.Link

    def speak(self, session_id: str, text: str) -> Speech:
        speech = self._live.get(session_id)
        if speech is None or speech.ended:
            self._complain("speak", session_id)
            return settled(text, SpeechOutcome.INTERRUPTED)
        if not text.strip():
            return settled(text, SpeechOutcome.PLAYED)
        return speech.say(text) or settled(text, SpeechOutcome.INTERRUPTED)

    def speak_stream(self, session_id: str, source: AsyncIterable[str]) -> Speech:
        speech = self._live.get(session_id)
        if speech is None or speech.ended:
            self._complain("speak", session_id)
            stream = TextStream(source, session_id, self._unheard_stream_failed)
            self._loop.call_soon_threadsafe(stream.stop)
            return settled("", SpeechOutcome.INTERRUPTED)
        return speech.stream(source) or settled("", SpeechOutcome.INTERRUPTED)

    def send_to_client(self, session_id: str, payload: str) -> None:
        if self._is_live("send_to_client", session_id):
            self._send(SendToClient(session_id=session_id, payload=payload))

    def send_binary_to_client(self, session_id: str, data: bytes, channel: str) -> None:
        if self._is_live("send_binary_to_client", session_id):
            self._send(SendBinaryToClient(session_id=session_id, data=data, channel=channel))

    def disconnect_client(self, session_id: str, reason: str | None) -> None:
        speech = self._live.get(session_id)
        if speech is None:
            self._complain("disconnect_client", session_id)
        else:
            speech.disconnect(DisconnectClient(session_id=session_id, reason=reason))

    def log(self, level: str, message: str, fields: Mapping[str, Any] | None, session_id: str | None) -> None:
        self._send(log_line(level, message, fields, session_id))

    def _is_live(self, function: str, session_id: str) -> bool:
        if session_id not in self._live:
            self._complain(function, session_id)
            return False
        return True

    def _complain(self, function: str, session_id: str) -> None:
        complaint = (function, session_id)
        if complaint not in self._complained_of and len(self._complained_of) < _MAX_REMEMBERED:
            self._complained_of.add(complaint)
            words = f"{function}() did nothing: session {session_id!r} has ended, or is none of this agent's"
            self.log("warn", words, None, None)

    def _stream_failed(self, session_id: str, started_in: str, error: BaseException) -> None:
        # Where that session is over, the one that is spoken to must not be left with half a sentence.
        owner = started_in if started_in in self._live else session_id
        if self._report is not None:
            self._report(owner, "speak", error)

    def _unheard_stream_failed(self, started_in: str, error: BaseException) -> None:
        if self._report is not None:
            self._report(started_in, "speak", error)
