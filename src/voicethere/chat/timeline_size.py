"""How much a conversation's timeline holds, so that no server can fill a client's memory with it."""

from __future__ import annotations

import msgspec

from voicethere.chat.store import ChatStore
from voicethere.core.chat import selectors

_ENTITY_BYTES = 500
_CHECK_EVERY_BYTES = 4 * 1024 * 1024


class TimelineSize:
    """Measures now and then: to look at each entity for every frame would cost more than all else."""

    def __init__(self, store: ChatStore, conv_id: str, max_bytes: int) -> None:
        self._store = store
        self._conv_id = conv_id
        self._max_bytes = max_bytes
        self._unmeasured: int | None = None

    def is_exceeded(self, frame_bytes: int) -> bool:
        """Whether the timeline was too large when last measured; `frame_bytes` came since the last call."""
        if self._unmeasured is not None:
            self._unmeasured += frame_bytes
            if self._unmeasured < min(_CHECK_EVERY_BYTES, self._max_bytes):
                return False
        self._unmeasured = 0
        return self._measured() > self._max_bytes

    def _measured(self) -> int:
        entities = selectors.select_timeline_entities(self._store.state, self._conv_id)
        encoder, scratch, total = msgspec.json.Encoder(), bytearray(), 0
        for entity in entities:
            encoder.encode_into(entity, scratch)
            total += len(scratch) + _ENTITY_BYTES
        return total
