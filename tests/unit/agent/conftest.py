"""A process without an agent, for every test of the SDK."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from voicethere.agent.process import this_process
from voicethere.agent.speech import Speech, SpeechOutcome
from voicethere.agent.speeches import settled


class RecordingLink:
    """A link that keeps what it is asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def speak(self, session_id: str, text: str) -> Speech:
        self.calls.append(("speak", session_id, text))
        return settled(text, SpeechOutcome.PLAYED)

    def speak_stream(self, session_id, source):
        self.calls.append(("speak_stream", session_id, source))
        return settled("", SpeechOutcome.PLAYED)

    def send_to_client(self, session_id, payload):
        self.calls.append(("send_to_client", session_id, payload))

    def send_binary_to_client(self, session_id, data, channel):
        self.calls.append(("send_binary_to_client", session_id, data, channel))

    def disconnect_client(self, session_id, reason):
        self.calls.append(("disconnect_client", session_id, reason))

    def log(self, level, message, fields, session_id):
        self.calls.append(("log", level, message, fields, session_id))


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    this_process.agent = this_process.link = None
    yield
    this_process.agent = this_process.link = None


@pytest.fixture
def link(fresh_process) -> RecordingLink:
    link = RecordingLink()
    this_process.link = link
    return link
