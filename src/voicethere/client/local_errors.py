"""The errors that a client finds out by itself (the seed's "client-only" codes, and two that it maps)."""

from __future__ import annotations

import time

from voicethere.errors.codes import CATALOG, SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.errors.times import iso_from_epoch

_MAX_MESSAGE_CHARS = 2048


def local_error(
    code: SessionErrorCode, session_id: str, *, detail: str = "", recoverable: bool | None = None
) -> SessionErrorEnvelope:
    """The envelope for `code`, now. `detail` follows the catalog's sentence; `session_id` may be empty."""
    info = CATALOG[code]
    message = f"{info.message} {detail}".strip()
    return SessionErrorEnvelope(
        code=code.value,
        message=message[:_MAX_MESSAGE_CHARS],
        session_id=session_id,
        recoverable=info.recoverable if recoverable is None else recoverable,
        occurred_at=iso_from_epoch(time.time()),
    )
