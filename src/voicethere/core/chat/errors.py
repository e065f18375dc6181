"""What an error of a conversation is: its kinds, its stages, and what follows from them by default.

Knows nothing of who produces errors or of where they are kept.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

MAX_ERROR_HISTORY = 20
"""Records that a conversation keeps; the oldest goes first."""
REPEATS = "repeats"
"""The key of `details` that counts how often an error came again."""


class ChatErrorKind(enum.StrEnum):
    """What failed."""

    WS_ERROR = "ws_error"
    WS_CLOSE = "ws_close"
    HYDRATE_ERROR = "hydrate_error"
    HTTP_ERROR = "http_error"
    SEM_DECODE_ERROR = "sem_decode_error"
    RUNTIME_ERROR = "runtime_error"
    UNKNOWN_ERROR = "unknown_error"


class ChatErrorStage(enum.StrEnum):
    """What the conversation was about to do."""

    CONNECT = "connect"
    HYDRATE = "hydrate"
    STREAM = "stream"
    SEND = "send"
    DISCONNECT = "disconnect"
    UNKNOWN = "unknown"


class ChatErrorRecord(msgspec.Struct, frozen=True, gc=False):
    """One error of one conversation.

    `message` is for people, `source` names the function or module, `code` is symbolic (a session error code,
    where the session failed), `status` is HTTP's, `at` is in epoch milliseconds. `recoverable` is None only
    in a record made by hand: a store fills in what follows from kind and status. `details` is JSON data:
    treat it as immutable, as everything in the state.
    """

    id: str
    kind: ChatErrorKind
    stage: ChatErrorStage
    message: str
    at: int
    recoverable: bool | None = None
    source: str | None = None
    code: str | None = None
    status: int | None = None
    details: dict[str, Any] | None = None


# Looking a member up in its class costs more than the rest of what uses it; errors come in storms.
_HTTP_ERROR = ChatErrorKind.HTTP_ERROR
_UNKNOWN_ERROR = ChatErrorKind.UNKNOWN_ERROR


def default_message(kind: ChatErrorKind, stage: ChatErrorStage) -> str:
    """Words for an error that came without any: "http error (send)"."""
    return f"{kind.replace('_', ' ')} ({stage})"


def default_recoverable(kind: ChatErrorKind, status: int | None) -> bool:
    """Whether trying again may help, where the producer did not say."""
    if status is not None and kind is _HTTP_ERROR:
        return status == 429 or status >= 500
    return kind is not _UNKNOWN_ERROR
