"""Messages between the runner and a sandboxed agent child (contract: agent-ipc.md).

Both ends ship together. One message is one msgpack frame, its length in front as a big-endian 32-bit
number; `MAX_FRAME_BYTES` bounds it. Which process a frame came from says which child it is of; the
`session_id` in it is checked against the sessions that this child was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from voicethere.wire.control_channel import SpeechEventType

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_LOG_MESSAGE_CHARS = 2048
MAX_LOG_FIELDS_CHARS = 8192
MAX_SPEAK_CHARS = 16 * 1024
"""Characters of one `speak`, and of one part of a stream."""
MAX_STREAM_CHARS = 256 * 1024
"""Characters of a whole stream."""
MAX_CLIENT_MESSAGE_BYTES = 64 * 1024
"""Bytes of one message to the client: JSON text in UTF-8, or binary."""
MAX_ERROR_MESSAGE_CHARS = 8 * 1024
MAX_STACK_CHARS = 64 * 1024
MAX_COMMANDS = 1000
MAX_COMMAND_CHARS = 200

LOG_LEVELS = ("debug", "info", "warn", "error")

OUT_OF_MEMORY_STATUS = 86
"""The exit status of a child in which a MemoryError was not caught."""

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


class LoadAgent(_ToChild, frozen=True, kw_only=True, tag="load_agent"):
    """First message: load the bundle, then run `on_agent_start`. `bundle_dir` holds `agent.py`.

    The child itself holds `error_hook` to its limit; the runner holds the other hooks to theirs.
    """

    bundle_dir: str
    env: dict[str, str]
    error_hook_seconds: float = 5.0


class SessionStart(_ToChild, frozen=True, kw_only=True, tag="session_start"):
    """Runs `on_session_start`. `env` is the session's whole environment, customer context included."""

    session_id: str
    project_id: str
    build_id: str
    env: dict[str, str]
    customer_context: dict[str, Any] | None = None


class SpeechEventMessage(_ToChild, frozen=True, kw_only=True, tag="speech_event"):
    """Runs `on_speech_event`, and `on_user_speech_final` for a final with text."""

    session_id: str
    event: SpeechEventType
    text: str | None = None
    error: str | None = None


class DataChannelMessage(_ToChild, frozen=True, kw_only=True, tag="data_channel_message"):
    """Runs `on_data_channel_message` with parsed JSON, or the raw string."""

    session_id: str
    raw: str
    channel: str = "control"


class DataChannelBinary(_ToChild, frozen=True, kw_only=True, tag="data_channel_binary"):
    """Runs `on_data_channel_binary`; `channel` is `control` or `sync`."""

    session_id: str
    data: bytes
    channel: str


class IdleTimeout(_ToChild, frozen=True, kw_only=True, tag="idle_timeout"):
    """Runs `on_idle_timeout`, answered by `idle_timeout_done`."""

    session_id: str
    idle_timeout_seconds: int
    grace_seconds: float


class SessionEnd(_ToChild, frozen=True, kw_only=True, tag="session_end"):
    """Runs `on_session_end`, answered by `session_end_ack`."""

    session_id: str


class SpeechDone(_ToChild, frozen=True, kw_only=True, tag="speech_done"):
    """What became of one `speak`: resolves the handle that the agent may await.

    For a stream that runs, `interrupted` asks the child to stop it.
    """

    session_id: str
    speech_id: int
    interrupted: bool


class Ping(_ToChild, frozen=True, kw_only=True, tag="ping"):
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


class AgentLoaded(_FromChild, frozen=True, kw_only=True, tag="agent_loaded"):
    """The bundle is loaded and `on_agent_start` is done."""

    hooks: list[str]
    commands: list[str]


class AgentLoadFailed(_FromChild, frozen=True, kw_only=True, tag="agent_load_failed"):
    """The bundle could not be loaded, or `on_agent_start` raised; the child exits after it.

    `stage` is `import`, `define_agent` or `on_agent_start`.
    """

    stage: str
    message: str
    stack: str


class SessionStartAck(_FromChild, frozen=True, kw_only=True, tag="session_start_ack"):
    session_id: str


class SessionEndAck(_FromChild, frozen=True, kw_only=True, tag="session_end_ack"):
    session_id: str


class IdleTimeoutDone(_FromChild, frozen=True, kw_only=True, tag="idle_timeout_done"):
    """`error` (`Type: words`) and `stack` are set if the hook raised. Not sent past the grace."""

    session_id: str
    error: str | None = None
    stack: str | None = None


class HandlerStarted(_FromChild, frozen=True, kw_only=True, tag="handler_started"):
    """A hook began; the runner holds it to the hook's time limit."""

    session_id: str
    hook: str


class HandlerFinished(_FromChild, frozen=True, kw_only=True, tag="handler_finished"):
    """The hook that began last for this session is over, however it ended."""

    session_id: str
    hook: str


class Speak(_FromChild, frozen=True, kw_only=True, tag="speak"):
    """Text → TTS on the outbound track."""

    session_id: str
    speech_id: int
    text: str


class SpeakStart(_FromChild, frozen=True, kw_only=True, tag="speak_start"):
    """A `speak` of text that is being written begins. One at a time in a session."""

    session_id: str
    speech_id: int


class SpeakText(_FromChild, frozen=True, kw_only=True, tag="speak_text"):
    """The next piece of it, at most `MAX_SPEAK_CHARS`; all of them together at most `MAX_STREAM_CHARS`."""

    session_id: str
    speech_id: int
    text: str


class SpeakEnd(_FromChild, frozen=True, kw_only=True, tag="speak_end"):
    """It is over, exactly once; not `complete` where it raised or was stopped."""

    session_id: str
    speech_id: int
    complete: bool


class SendToClient(_FromChild, frozen=True, kw_only=True, tag="send_to_client"):
    """`payload` is JSON text, made in the child so that what it cannot encode is the agent's own error."""

    session_id: str
    payload: str


class SendBinaryToClient(_FromChild, frozen=True, kw_only=True, tag="send_binary_to_client"):
    session_id: str
    data: bytes
    channel: str


class Log(_FromChild, frozen=True, kw_only=True, tag="log"):
    """Bounded in the child, and again by the runner, which does not trust it."""

    level: str
    message: str
    fields: dict[str, Any] | None = None
    session_id: str | None = None
    time: str | None = None


class AgentError(_FromChild, frozen=True, kw_only=True, tag="agent_error"):
    """A handler raised and `error_hook` has run. `message` is `Type: words`, `stack` the traceback's text.

    `session_id` is None where it cannot be told which session a background task was of: all are meant.
    """

    session_id: str | None
    hook: str
    message: str
    stack: str


class DisconnectClient(_FromChild, frozen=True, kw_only=True, tag="disconnect_client"):
    """The agent hangs up. `more`: some of what it said before is held back behind a stream; this comes again
    behind the last of it, without `more`."""

    session_id: str
    reason: str | None = None
    more: bool = False


class Pong(_FromChild, frozen=True, kw_only=True, tag="pong"):
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
    | SpeakStart
    | SpeakText
    | SpeakEnd
    | SendToClient
    | SendBinaryToClient
    | Log
    | AgentError
    | DisconnectClient
    | Pong
)

_LENGTH_BYTES = 4


class FrameTooLong(ValueError):
    """A frame's length is past `MAX_FRAME_BYTES`: the stream cannot be trusted any further."""


def add_length(frame: bytes) -> bytes:
    """A frame as it goes onto the stream.

    Raises:
        FrameTooLong: the other end would refuse it.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise FrameTooLong(f"a frame of {len(frame)} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return len(frame).to_bytes(_LENGTH_BYTES, "big") + frame


class FrameSplitter:
    """Cuts a stream into frames: bytes in, whole frames out.

    Example:
        >>> list(FrameSplitter().feed(add_length(b"one") + add_length(b"two")))
        [b'one', b'two']
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete now. The iterator must be used up before the next call.

        Raises:
            FrameTooLong: while iterating, on a length past the limit.
        """
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTH_BYTES:
                length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
                if length > MAX_FRAME_BYTES:
                    raise FrameTooLong(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
                end = start + _LENGTH_BYTES + length
                if len(self._buffer) < end:
                    break
                frame = bytes(self._buffer[start + _LENGTH_BYTES : end])
                start = end
                yield frame
        finally:
            del self._buffer[:start]


_encoder = msgspec.msgpack.Encoder()
_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)


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
