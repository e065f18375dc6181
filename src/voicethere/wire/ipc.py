"""Messages between the runner and a sandboxed agent child (contract: agent-ipc.md).

Both ends ship together. One message is one msgpack frame, its length in front as a big-endian 32-bit
number; `MAX_FRAME_BYTES` bounds it. Which process a frame came from says which child it is of; the
`session_id` in it is checked against the sessions that this child was given.
"""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.wire.control_channel import SpeechEventType

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_LOG_MESSAGE_CHARS = 2048
MAX_LOG_FIELDS_CHARS = 8192

# The environment that the runner builds for a child, from nothing.
ENV_SESSION_ID = "SESSION_ID"
ENV_PROJECT_ID = "PROJECT_ID"
ENV_BUILD_ID = "BUILD_ID"
ENV_IDLE_TIMEOUT_SEC = "IDLE_TIMEOUT_SEC"
ENV_CUSTOMER_CONTEXT = "AGENT_CUSTOMER_CONTEXT"
ENV_CRASH_TTS_MESSAGE = "AGENT_CRASH_TTS_MESSAGE"


class _ToChild(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class _FromChild(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


# ------------------------------------------------------------------ runner → child


class LoadAgent(_ToChild, tag="load_agent"):
    """First message: load the bundle, then run `on_agent_start`. `bundle_dir` holds `agent.py`."""

    bundle_dir: str
    env: dict[str, str]
    hook_timeout_seconds: float = 60.0


class SessionStart(_ToChild, tag="session_start"):
    """Runs `on_session_start`. `env` is the session's whole environment, customer context included."""

    session_id: str
    project_id: str
    build_id: str
    env: dict[str, str]
    customer_context: dict[str, Any] | None = None


class SpeechEventMessage(_ToChild, tag="speech_event"):
    """Runs `on_speech_event`, and `on_user_speech_final` for a final with text."""

    session_id: str
    event: SpeechEventType
    text: str | None = None
    error: str | None = None


class DataChannelMessage(_ToChild, tag="data_channel_message"):
    """Runs `on_data_channel_message` with parsed JSON, or the raw string."""

    session_id: str
    raw: str
    channel: str = "control"


class DataChannelBinary(_ToChild, tag="data_channel_binary"):
    """Runs `on_data_channel_binary`; `channel` is `control` or `sync`."""

    session_id: str
    data: bytes
    channel: str


class IdleTimeout(_ToChild, tag="idle_timeout"):
    """Runs `on_idle_timeout`, answered by `idle_timeout_done`."""

    session_id: str
    idle_timeout_seconds: int
    grace_seconds: float


class SessionEnd(_ToChild, tag="session_end"):
    """Runs `on_session_end`, answered by `session_end_ack`."""

    session_id: str


class SpeechDone(_ToChild, tag="speech_done"):
    """What became of one `speak`: resolves the handle that the agent may await."""

    session_id: str
    speech_id: int
    interrupted: bool


class Ping(_ToChild, tag="ping"):
    """The child's event loop answers with the same number."""

    n: int


ToChild = (
    LoadAgent
    | SessionStart
    | SpeechEventMessage
    | DataChannelMessage
    | DataChannelBinary
    | IdleTimeout
    | SessionEnd
    | SpeechDone
    | Ping
)


# ------------------------------------------------------------------ child → runner


class AgentLoaded(_FromChild, tag="agent_loaded"):
    """The bundle is loaded and `on_agent_start` is done."""

    hooks: list[str]
    commands: list[str]


class AgentLoadFailed(_FromChild, tag="agent_load_failed"):
    """The bundle could not be loaded, or `on_agent_start` raised; the child exits after it.

    `stage` is `import`, `define_agent` or `on_agent_start`.
    """

    stage: str
    message: str
    stack: str


class SessionStartAck(_FromChild, tag="session_start_ack"):
    session_id: str


class SessionEndAck(_FromChild, tag="session_end_ack"):
    session_id: str


class IdleTimeoutDone(_FromChild, tag="idle_timeout_done"):
    """`error` and `stack` are set if the hook raised."""

    session_id: str
    error: str | None = None
    stack: str | None = None


class HandlerStarted(_FromChild, tag="handler_started"):
    """A hook began; the runner holds it to the hook's time limit."""

    session_id: str
    hook: str


class HandlerFinished(_FromChild, tag="handler_finished"):
    """The hook that began last for this session is over."""

    session_id: str
    hook: str


class Speak(_FromChild, tag="speak"):
    """Text → TTS on the outbound track."""

    session_id: str
    speech_id: int
    text: str


class SendToClient(_FromChild, tag="send_to_client"):
    """`payload` is JSON text, made in the child so that what it cannot encode is the agent's own error."""

    session_id: str
    payload: str


class SendBinaryToClient(_FromChild, tag="send_binary_to_client"):
    session_id: str
    data: bytes
    channel: str


class Log(_FromChild, tag="log"):
    """Bounded in the child, and again by the runner, which does not trust it."""

    level: str
    message: str
    fields: dict[str, Any] | None = None
    session_id: str | None = None
    time: str | None = None


class AgentError(_FromChild, tag="agent_error"):
    """A handler raised and `error_hook` has run. `message` is `Type: words`, `stack` the traceback's text.

    `session_id` is None where it cannot be told which session a background task was of: all are meant.
    """

    session_id: str | None
    hook: str
    message: str
    stack: str


class DisconnectClient(_FromChild, tag="disconnect_client"):
    session_id: str
    reason: str | None = None


class Pong(_FromChild, tag="pong"):
    n: int


FromChild = (
    AgentLoaded
    | AgentLoadFailed
    | SessionStartAck
    | SessionEndAck
    | IdleTimeoutDone
    | HandlerStarted
    | HandlerFinished
    | Speak
    | SendToClient
    | SendBinaryToClient
    | Log
    | AgentError
    | DisconnectClient
    | Pong
)

_encoder = msgspec.msgpack.Encoder()
_to_child = msgspec.msgpack.Decoder(ToChild)
_from_child = msgspec.msgpack.Decoder(FromChild)


def encode(message: ToChild | FromChild) -> bytes:
    """One frame's payload (without its length)."""
    return _encoder.encode(message)


def decode_to_child(frame: bytes) -> ToChild:
    """What the runner said.

    Raises:
        msgspec.DecodeError: not a frame of this protocol.
    """
    return _to_child.decode(frame)


def decode_from_child(frame: bytes) -> FromChild:
    """What the child said; the child is hostile.

    Raises:
        msgspec.DecodeError: not a frame of this protocol.
    """
    return _from_child.decode(frame)
