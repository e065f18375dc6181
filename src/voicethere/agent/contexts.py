"""What the hooks are given: one context object each.

Plain values: an agent's own unit test makes them by hand. They know nothing of the child or the runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class AgentStartContext(msgspec.Struct, frozen=True, kw_only=True):
    """For `on_agent_start`: `env` is the environment that the child was started with."""

    env: Mapping[str, str]


class SessionContext(msgspec.Struct, frozen=True, kw_only=True):
    """For `on_session_start` and `on_session_end`; the base of all contexts of a session.

    `customer_context` is what the client's application passed along, or None.
    """

    session_id: str
    project_id: str
    build_id: str
    env: Mapping[str, str]
    customer_context: dict[str, Any] | None = None


class SpeechEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One speech event; `type` is such as `user_speech_final` or `barge_in`."""

    type: str
    text: str | None = None
    error: str | None = None


class SpeechEventContext(SessionContext, frozen=True, kw_only=True):
    """For `on_speech_event`."""

    event: SpeechEvent


class UserSpeechFinalContext(SessionContext, frozen=True, kw_only=True):
    """For `on_user_speech_final`: `text` is what the user said."""

    text: str


class DataChannelMessageContext(SessionContext, frozen=True, kw_only=True):
    """For `on_data_channel_message`: `message` is the parsed JSON, or `raw` itself where it is not JSON."""

    message: Any
    raw: str
    channel: str


class DataChannelBinaryContext(SessionContext, frozen=True, kw_only=True):
    """For `on_data_channel_binary`; `channel` is `control` or `sync`."""

    data: bytes
    channel: str


class IdleTimeoutContext(SessionContext, frozen=True, kw_only=True):
    """For `on_idle_timeout`: the limit, in seconds, for which nothing happened."""

    idle_timeout_seconds: int


class ErrorContext(SessionContext, frozen=True, kw_only=True):
    """For `error_hook`: the exception, and the name of the hook (or background task) that raised it."""

    error: BaseException
    hook: str
