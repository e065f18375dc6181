"""What a client's frame on a data channel asks for: decoding and limits, no action.

A message that is over a limit, or breaks a rule, is refused visibly: the client is told by a
`message_refused` message (ours; clients ignore types that they do not know), and nothing else happens to it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from voicethere.errors import context_problem
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.wire.control_channel import (
    Chat,
    Keepalive,
    SessionClose,
    SessionHello,
    SpeakRequest,
    client_message_decoder,
)
from voicethere.wire.tagged import UndecodableMessage


class MessageRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Runner → client: a message of the client's was not taken. `refused` is its `type`, where it had one."""

    type: Literal["message_refused"] = "message_refused"
    reason: str
    refused: str | UnsetType = UNSET


class ForAgent(msgspec.Struct, frozen=True, kw_only=True):
    """The text goes to `on_data_channel_message` as it is."""

    raw: str


Request = SessionHello | SpeakRequest | SessionClose | Keepalive | ForAgent | MessageRefused


def interpret(text: str, settings: RunnerSettings) -> Request:
    """What the frame asks for. Never raises."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > settings.max_json_message_bytes:
        limit = settings.max_json_message_bytes
        return MessageRefused(reason=f"the message has {size} bytes, at most {limit} are taken")
    try:
        message: Any = client_message_decoder.decode(text)
    except UndecodableMessage as problem:
        return _undecodable(text, problem)
    match message:
        case SessionHello(customer_context=context):
            problem_text = context_problem(context, settings.bounds)
            if problem_text is not None:
                return MessageRefused(reason=problem_text, refused="session_hello")
            return message
        case SpeakRequest() | SessionClose() | Keepalive():
            return message
        case Chat() | None:
            return ForAgent(raw=text)
    return ForAgent(raw=text)


def _undecodable(text: str, problem: UndecodableMessage) -> Request:
    """Our own types with fields of a wrong shape are refused; everything else is the agent's to read."""
    tag = client_message_decoder.tag(text)
    if tag is not None and tag != "chat":
        return MessageRefused(reason=f"not a well-formed {tag}: {problem}", refused=tag)
    return ForAgent(raw=text)
