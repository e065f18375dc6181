"""One conversation that hears SEM frames as text, as a client does, without any socket."""

from __future__ import annotations

import json
from typing import Any

from voicethere.chat import ChatErrorRecord, ChatStore, SemContext, SemRegistry, TimelineEntity, selectors
from voicethere.core.chat.entity_effects import apply_snapshot
from voicethere.core.chat.state import TurnStats
from voicethere.testing.clock import ManualClock
from voicethere.wire.sem import SemEvent, decode_frame, decode_snapshot


def frame(type: str, id: str = "m1", data: Any = None, **fields: Any) -> str:
    """A frame's text."""
    return json.dumps({"sem": True, "event": {"type": type, "id": id, "data": data, **fields}})


def event(type: str, id: str = "m1", data: Any = None, **fields: Any) -> SemEvent:
    """A frame's event, as a client reads it."""
    decoded = decode_frame(frame(type, id, data, **fields))
    assert decoded is not None
    return decoded


def message(id: str = "m1", version: int = 0, **props: Any) -> dict[str, Any]:
    """The data of a `timeline.upsert` of a message of the assistant's."""
    entity = {"id": id, "kind": "message", "createdAtMs": 5, "props": {"role": "assistant", **props}}
    return {"convId": "c", "version": version, "entity": entity}


class Conversation:
    """A context with a store of its own; `hear` applies an event, the properties read what came of it."""

    def __init__(self, registry: SemRegistry | None = None, duplicate_window_ms: int = 5_000) -> None:
        self.clock = ManualClock(now=1_000.0)
        self.store = ChatStore(clock=self.clock, duplicate_window_ms=duplicate_window_ms)
        self.context = SemContext("c", self.store, clock=self.clock)
        self.registry = registry or SemRegistry()

    def hear(self, type: str, id: str = "m1", data: Any = None, **fields: Any) -> bool:
        return self.registry.apply(self.context, event(type, id, data, **fields))

    def upsert(self, id: str = "m1", version: int = 0, **props: Any) -> None:
        self.hear("timeline.upsert", id, message(id, version, **props))

    def snapshot(self, version: int, *entities: Any) -> tuple[int, int]:
        body = json.dumps({"convId": "c", "version": version, "serverTimeMs": 1, "entities": entities})
        return apply_snapshot(self.context, decode_snapshot(body))

    @property
    def streams(self) -> bool:
        return selectors.select_is_streaming(self.store.state, "c")

    @property
    def tokens(self) -> int:
        return selectors.select_stream_output_tokens(self.store.state, "c")

    @property
    def stats(self) -> TurnStats | None:
        return selectors.select_current_turn_stats(self.store.state, "c")

    @property
    def total(self) -> int:
        return selectors.select_conversation_total_tokens(self.store.state, "c")

    @property
    def model(self) -> str | None:
        return selectors.select_model_name(self.store.state, "c")

    @property
    def error(self) -> ChatErrorRecord | None:
        return selectors.select_current_error(self.store.state, "c")

    @property
    def history(self) -> tuple[ChatErrorRecord, ...]:
        return selectors.select_error_history(self.store.state, "c")

    @property
    def entities(self) -> tuple[TimelineEntity, ...]:
        return selectors.select_timeline_entities(self.store.state, "c")

    def entity(self, id: str) -> TimelineEntity | None:
        return selectors.select_timeline_entity_by_id(self.store.state, "c", id)
