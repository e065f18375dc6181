"""The SDK's functions on their way to the runner (`process.Link`), from any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from voicethere.agent.log_lines import log_line
from voicethere.agent.speech import Speech, SpeechOutcome
from voicethere.agent.speeches import Speeches, settled
from voicethere.wire.ipc import (
    DisconnectClient,
    FromChild,
    SendBinaryToClient,
    SendToClient,
    Speak,
    SpeechDone,
)

_MAX_REMEMBERED = 100


class RunnerLink:
    """Sends for sessions that are live; for others nothing but one line in the log each."""

    def __init__(self, send: Callable[[FromChild], None]) -> None:
        self._send = send
        self._live: set[str] = set()
        self._speaking: set[str] = set()
        self._speeches = Speeches()
        self._complained_of: set[tuple[str, str]] = set()

    def session_began(self, session_id: str) -> None:
        """From now on its client can be spoken and sent to."""
        self._live.add(session_id)
        self._speaking.add(session_id)

    def session_ends(self, session_id: str) -> None:
        """Nothing is spoken any more; what was still being said is interrupted. Messages may yet pass."""
        self._speaking.discard(session_id)
        self._speeches.session_over(session_id)

    def session_over(self, session_id: str) -> None:
        """`on_session_end` is done: nothing of this session is sent any more."""
        self._live.discard(session_id)

    def speech_done(self, message: SpeechDone) -> None:
        """The runner says what became of a `speak`."""
        outcome = SpeechOutcome.INTERRUPTED if message.interrupted else SpeechOutcome.PLAYED
        self._speeches.done(message.session_id, message.speech_id, outcome)

    # -- process.Link

    def speak(self, session_id: str, text: str) -> Speech:
        if not self._is_in(self._speaking, "speak", session_id):
            return settled(text, SpeechOutcome.INTERRUPTED)
        if not text.strip():
            return settled(text, SpeechOutcome.PLAYED)
        number, speech = self._speeches.open(session_id, text)
        self._send(Speak(session_id=session_id, speech_id=number, text=text))
        if session_id not in self._speaking:  # it ended while another thread was in here
            self._speeches.session_over(session_id)
        return speech

    def send_to_client(self, session_id: str, payload: str) -> None:
        if self._is_in(self._live, "send_to_client", session_id):
            self._send(SendToClient(session_id=session_id, payload=payload))

    def send_binary_to_client(self, session_id: str, data: bytes, channel: str) -> None:
        if self._is_in(self._live, "send_binary_to_client", session_id):
            self._send(SendBinaryToClient(session_id=session_id, data=data, channel=channel))

    def disconnect_client(self, session_id: str, reason: str | None) -> None:
        if self._is_in(self._live, "disconnect_client", session_id):
            self._send(DisconnectClient(session_id=session_id, reason=reason))

    def log(self, level: str, message: str, fields: Mapping[str, Any] | None, session_id: str | None) -> None:
        self._send(log_line(level, message, fields, session_id))

    def _is_in(self, sessions: set[str], function: str, session_id: str) -> bool:
        if session_id in sessions:
            return True
        complaint = (function, session_id)
        if complaint not in self._complained_of and len(self._complained_of) < _MAX_REMEMBERED:
            self._complained_of.add(complaint)
            words = f"{function}() did nothing: session {session_id!r} has ended, or is none of this agent's"
            self.log("warn", words, None, None)
        return False
