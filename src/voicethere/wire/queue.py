"""What the `session-errors` queue carries: errors, and the ends of sessions behind them.

The end of a session takes the same way as its errors, in the same order: whoever sees a session ended
in the database finds its errors there too.
"""

from __future__ import annotations

import msgspec

from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import ErrorRecord

QUEUE_NAME = "session-errors"


class ErrorItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="error"):
    """One error to persist, at most once on `record.id`."""

    record: ErrorRecord


class SessionEndedItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="session_ended"):
    """The session is over. `failed` where an error ended it; `ended_at` is a wire time."""

    session_id: str
    project_id: str
    end_reason: str
    failed: bool
    ended_at: str


class SuppressedItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="suppressed"):
    """So many errors of one code were not queued, because their project had too many at once.

    Stored at most once on `id`. `first_at` and `last_at` (wire times) are when the first and the last of them
    occurred; `count` is at least 1.
    """

    id: str
    project_id: str
    code: SessionErrorCode
    count: int
    first_at: str
    last_at: str


QueueItem = ErrorItem | SessionEndedItem | SuppressedItem

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[QueueItem] = msgspec.json.Decoder(QueueItem)


def encode(item: QueueItem) -> bytes:
    """JSON bytes, readable in the queue by an operator."""
    return _encoder.encode(item)


def decode(data: bytes) -> QueueItem:
    """Raises msgspec.DecodeError where it is none: a poison item, for the dead letters."""
    return _decoder.decode(data)
