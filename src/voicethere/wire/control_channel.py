"""Messages of the `voice-control` data channel, both ways (contract: control-channel.md)."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.tagged import TaggedDecoder

CONTROL_LABEL = "voice-control"
"""Ordered, reliable."""
SYNC_LABEL = "voicethere-sync"
"""Unordered, raw binary."""

MAX_JSON_MESSAGE_BYTES = 64 * 1024


class EndReason(enum.StrEnum):
    """Why a session ended."""

    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_CLOSE_SIGNAL = "client_close_signal"
    IDLE_TIMEOUT = "idle_timeout"
    AGENT_ERROR = "agent_error"
    AGENT_DISCONNECTED = "agent_disconnected"
    RUNNER_SHUTDOWN = "runner_shutdown"
    ERROR = "error"


class SpeechEventType(enum.StrEnum):
    """The `event` of a `speech_event`."""

    USER_SPEAKING_START = "user_speaking_start"
    USER_SPEAKING_END = "user_speaking_end"
    USER_SPEECH_PARTIAL = "user_speech_partial"
    USER_SPEECH_FINAL = "user_speech_final"
    AGENT_SPEAKING_START = "agent_speaking_start"
    AGENT_SPEAKING_END = "agent_speaking_end"
    VAD_TRIGGERED = "vad_triggered"
    STT_STREAM_START = "stt_stream_start"
    STT_STREAM_END = "stt_stream_end"
    USER_STT_START = "user_stt_start"
    USER_STT_END = "user_stt_end"
    USER_STT_NOT_FOUND = "user_stt_not_found"
    BARGE_IN = "barge_in"
    ERROR = "error"


class SessionHello(msgspec.Struct, frozen=True, kw_only=True):
    """Client → runner, on open, by clients that have a context."""

    type: Literal["session_hello"] = "session_hello"
    customer_context: dict[str, Any]


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """Client → runner: a user's text turn."""

    type: Literal["chat"] = "chat"
    text: str


class SpeakRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Client → runner: asks for the text to be spoken, where the project allows it."""

    type: Literal["speak"] = "speak"
    text: str


class Keepalive(msgspec.Struct, frozen=True, kw_only=True):
    """Client → runner: counts as client traffic, nothing else."""

    type: Literal["keepalive"] = "keepalive"


class SessionClose(msgspec.Struct, frozen=True, kw_only=True):
    """Either way: a client's graceful end (`reason`, `customer_context`), or why the runner ends it."""

    type: Literal["session_close"] = "session_close"
    code: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    customer_context: dict[str, Any] | UnsetType = UNSET


class SessionReconnectToken(msgspec.Struct, frozen=True, kw_only=True, rename={"expires_at": "expiresAt"}):
    """Runner → client: replaces the join token."""

    type: Literal["session_reconnect_token"] = "session_reconnect_token"
    token: str
    expires_at: str


class SpeechEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Runner → client. `ts` is ISO-8601 UTC with milliseconds."""

    type: Literal["speech_event"] = "speech_event"
    event: SpeechEventType
    ts: str
    text: str | UnsetType = UNSET
    error: str | UnsetType = UNSET


class AgentSpeak(msgspec.Struct, frozen=True, kw_only=True):
    """Runner → client: sent before the speech itself."""

    type: Literal["agent_speak"] = "agent_speak"
    text: str
    ts: str


class LegacyAgentError(msgspec.Struct, frozen=True, kw_only=True):
    """Runner → client, from older runners (seed: "Migration")."""

    type: Literal["agent_error"] = "agent_error"
    message: str | UnsetType = UNSET


client_message_decoder = TaggedDecoder(
    {
        "session_hello": SessionHello,
        "chat": Chat,
        "speak": SpeakRequest,
        "session_close": SessionClose,
        "keepalive": Keepalive,
    }
)
"""Decodes what the runner reads. None or an error: the message goes to the agent as it is."""

runner_message_decoder = TaggedDecoder(
    {
        "session_error": SessionErrorEnvelope,
        "session_close": SessionClose,
        "session_reconnect_token": SessionReconnectToken,
        "speech_event": SpeechEvent,
        "agent_speak": AgentSpeak,
        "agent_error": LegacyAgentError,
    }
)
"""Decodes what a client reads. None: an application message, for `on_control_message`."""


def runner_message_type(text: str) -> str | None:
    """The `type` of a message that only the platform may send to clients; None for an agent's own."""
    return runner_message_decoder.tag(text)
