"""Messages between session services and runners, and among session services, however a relay carries them.

Everything here is between our own processes. What a relay loses (because one side restarted) must not
lose an error: errors and ends of sessions go through the queue (`wire.queue`), never only through here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason
from voicethere.wire.session_api import FailureCode, IceServer, Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings


class _ToRunner(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class _ToService(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class DeployedAgent(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy froze: the build, the settings and the environment that its sessions run with."""

    project_id: str
    build_id: str
    bundle_checksum: str
    mode: Mode
    settings: SessionSettings
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}
    client_speak_enabled: bool = False
    agent_crash_policy: AgentCrashPolicy = AgentCrashPolicy.DISCONNECT_ALL
    shared_child_per_session: bool = False
    warm_pool_enabled: bool = False


# ------------------------------------------------------------------ session service → runner


class AssignSession(_ToRunner, frozen=True, kw_only=True, tag="assign_session"):
    """Host this session; answered by `SessionAccepted` or `SessionRefused`.

    `chat`: its client is a conversation, whose prompts and outputs go over the relay (`ChatPrompt`,
    `ChatOutput`); nobody joins its room, and its agent is given in mode `data`.
    """

    session_id: str
    room_id: str
    agent: DeployedAgent
    ice_servers: list[IceServer] = []
    customer_context: dict[str, Any] | None = None
    chat: bool = False


class CancelSession(_ToRunner, frozen=True, kw_only=True, tag="cancel_session"):
    """Nobody joined in time, or the service gave the session up: end it without an error."""

    session_id: str


class PeerJoinedRoom(_ToRunner, frozen=True, kw_only=True, tag="peer_joined"):
    """A peer joined, or again with the same id (its earlier socket is replaced): offer to `client-` ids."""

    session_id: str
    peer_id: str


class PeerLeftRoom(_ToRunner, frozen=True, kw_only=True, tag="peer_left"):
    """A peer's signaling socket is gone."""

    session_id: str
    peer_id: str


class SignalFromPeer(_ToRunner, frozen=True, kw_only=True, tag="signal_from_peer"):
    """A message that a peer addressed to the runner: signaling JSON text, checked to be of this room."""

    session_id: str
    peer_id: str
    message: str


class TokenIssued(_ToRunner, frozen=True, kw_only=True, tag="token_issued"):
    """Answer to `TokenWanted`. `expires_at` is a wire time."""

    session_id: str
    token: str
    expires_at: str


class EndSession(_ToRunner, frozen=True, kw_only=True, tag="end_session"):
    """End this session in order, for this reason: its client is told (a deploy in `force` mode)."""

    session_id: str
    end_reason: EndReason


class KeepWarm(_ToRunner, frozen=True, kw_only=True, tag="keep_warm"):
    """Have a child of each of these agents ready before its next session. The whole list: what was said
    before is replaced."""

    agents: list[DeployedAgent]


class ChatPrompt(_ToRunner, frozen=True, kw_only=True, tag="chat_prompt"):
    """A user's prompt; `number` counts the session's prompts from 1.

    Said again until `ChatPromptTaken` covers it: taken once, in order; one that comes too early is not taken.
    """

    session_id: str
    number: int
    text: str


class ChatTaken(_ToRunner, frozen=True, kw_only=True, tag="chat_taken"):
    """Every output of the session up to and with `number` is stored."""

    session_id: str
    number: int


ToRunner = (
    AssignSession
    | CancelSession
    | ChatPrompt
    | ChatTaken
    | EndSession
    | KeepWarm
    | PeerJoinedRoom
    | PeerLeftRoom
    | SignalFromPeer
    | TokenIssued
)


# ------------------------------------------------------------------ runner → session service


class RunnerHello(_ToService, frozen=True, kw_only=True, tag="runner_hello"):
    """First message of a runner's link, said again when services call the roll. `sessions` are those that it
    hosts; a runner that is `draining` takes no more of them."""

    runner_id: str
    capacity: int
    sessions: list[str] = []
    draining: bool = False


class Heartbeat(_ToService, frozen=True, kw_only=True, tag="heartbeat"):
    """Every second; `active` is the number of sessions hosted. `draining`: it takes no more of them."""

    active: int
    draining: bool = False


class SessionAccepted(_ToService, frozen=True, kw_only=True, tag="session_accepted"):
    """The runner is ready for the session's peer."""

    session_id: str


class SessionRefused(_ToService, frozen=True, kw_only=True, tag="session_refused"):
    """The runner cannot host the session."""

    session_id: str
    failure_code: FailureCode
    message: str


class SignalToPeer(_ToService, frozen=True, kw_only=True, tag="signal_to_peer"):
    """Signaling JSON text for one peer of the session's room."""

    session_id: str
    peer_id: str
    message: str


class TokenWanted(_ToService, frozen=True, kw_only=True, tag="token_wanted"):
    """The runner wants a fresh join token to pass to the client."""

    session_id: str


class RoomClosed(_ToService, frozen=True, kw_only=True, tag="room_closed"):
    """The session is over: refuse its token, close its sockets. Its row follows through the queue."""

    session_id: str


# ------------------------------------------------------------------ what a chat session says


class _ChatBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class ChatMessage(_ChatBody, frozen=True, kw_only=True, tag="message"):
    """The agent said `text`. `speech_id` is unique in the conversation."""

    speech_id: str
    text: str


class ChatStreamStart(_ChatBody, frozen=True, kw_only=True, tag="stream_start"):
    """The agent began to say something that is yet to be made."""

    speech_id: str


class ChatStreamText(_ChatBody, frozen=True, kw_only=True, tag="stream_text"):
    """The agent said more of it: `delta` is what is new, `cumulative` all of it so far."""

    speech_id: str
    delta: str
    cumulative: str


class ChatStreamEnd(_ChatBody, frozen=True, kw_only=True, tag="stream_end"):
    """There is no more of it; `text` is all of it. Not `complete`: it was cut off or failed."""

    speech_id: str
    text: str
    complete: bool


class ChatPassed(_ChatBody, frozen=True, kw_only=True, tag="passed"):
    """The agent's `send_to_client`: `payload` is JSON text as the agent made it."""

    payload: str


class ChatFailure(_ChatBody, frozen=True, kw_only=True, tag="failure"):
    """An error of the session; `error_id` is its row's id."""

    error_id: str
    envelope: SessionErrorEnvelope


class ChatClosed(_ChatBody, frozen=True, kw_only=True, tag="closed"):
    """The session ends in order: nothing of it follows but what fails on the way."""

    end_reason: EndReason


ChatBody = (
    ChatMessage | ChatStreamStart | ChatStreamText | ChatStreamEnd | ChatPassed | ChatFailure | ChatClosed
)


class ChatOutput(_ToService, frozen=True, kw_only=True, tag="chat_output"):
    """What a chat session said; `number` counts the session's outputs from 1, without a gap.

    Said again until `ChatTaken` covers it, then with `again`: whoever hears that stores it, whether the
    conversation is of interest there or not. `prompts` is what `ChatPromptTaken` said last: so that no prompt
    that the session has answered counts as not taken, whatever was lost on its way.
    """

    session_id: str
    number: int
    body: ChatBody
    again: bool = False
    prompts: int = 0


class ChatPromptTaken(_ToService, frozen=True, kw_only=True, tag="chat_prompt_taken"):
    """The session's agent has begun with every prompt up to and with `number`; or has no hook for them, and
    that was told."""

    session_id: str
    number: int


ToService = (
    RunnerHello
    | Heartbeat
    | SessionAccepted
    | SessionRefused
    | SignalToPeer
    | TokenWanted
    | RoomClosed
    | ChatOutput
    | ChatPromptTaken
)

# ------------------------------------------------------------------ among session services


class _Notice(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    pass


class SessionWanted(_Notice, frozen=True, kw_only=True, tag="session_wanted"):
    """A session was made: whoever coordinates should provision it now rather than at its next look."""

    session_id: str


class SessionMoved(_Notice, frozen=True, kw_only=True, tag="session_moved"):
    """A session's provisioning has come to something: whoever holds a poll of it looks again.

    `settled`: it is ready or failed; otherwise it waits in the line.
    """

    session_id: str
    settled: bool


class SessionOver(_Notice, frozen=True, kw_only=True, tag="session_over"):
    """A session is over of which no runner can tell its clients: whoever has sockets of it closes them.

    `error` is for clients whom the runner could not tell.
    """

    session_id: str
    error: SessionErrorEnvelope | None = None


class CapacityNow(_Notice, frozen=True, kw_only=True, tag="capacity"):
    """What the coordinator sees, every second and at changes: how many sessions all runners can host
    together, how many more they could take now, how many wait, and how long sessions last on average, in
    seconds.
    """

    runners: int
    capacity: int
    free: int
    waiting: int
    mean_session_seconds: float


class ChatFrames(_Notice, frozen=True, kw_only=True, tag="chat_frames"):
    """Frames of a conversation as JSON text, in the order of their `seq`, which counts on from `first_seq`.

    What they tell is stored; they are for the sockets that other gateways hold on the conversation.
    """

    project_id: str
    conversation_id: str
    first_seq: int
    frames: list[str]


ServiceNotice = SessionWanted | SessionMoved | SessionOver | CapacityNow | ChatFrames

_encoder = msgspec.msgpack.Encoder()
_to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)
_to_service: msgspec.msgpack.Decoder[ToService] = msgspec.msgpack.Decoder(ToService)
_notice: msgspec.msgpack.Decoder[ServiceNotice] = msgspec.msgpack.Decoder(ServiceNotice)


def encode(message: ToRunner | ToService | ServiceNotice) -> bytes:
    """One message as msgpack."""
    return _encoder.encode(message)


def decode_to_runner(data: bytes) -> ToRunner:
    """Raises msgspec.DecodeError where it is none."""
    return _to_runner.decode(data)


def decode_to_service(data: bytes) -> ToService:
    """Raises msgspec.DecodeError where it is none."""
    return _to_service.decode(data)


def decode_notice(data: bytes) -> ServiceNotice:
    """Raises msgspec.DecodeError where it is none."""
    return _notice.decode(data)
