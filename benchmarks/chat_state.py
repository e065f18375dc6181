"""How many chat actions and frames a second one core takes, at 1, 50 and 10,000 conversations.

    python benchmarks/chat_state.py [--json]

Takes some seconds and needs nothing but Python; `chat_vs_node.py` runs the same rounds in turns with Redux.
Each figure is the median of its rounds, the collector running as it does in an application:

- `floor`: one write to the persistent map alone.
- `push_error`: an action made, checked, completed and recorded in a full history, the window for duplicates
  open. Each conversation has 20 errors; no two in a row are the same.
- `set_connection_status`: the same for an action that hardly does anything.
- `frames`: a streaming `timeline.upsert` of some 900 bytes read, validated, and applied to the timeline.
- `client_frames`: the same by the registry, as a client does it: the rule for messages without text and the
  running streams are in it.
- `read`: the frame read and validated only.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from immutables import Map

from voicethere.chat import ChatStore, SemRegistry, actions, selectors
from voicethere.core.chat import checks
from voicethere.core.chat.entities import entity_of
from voicethere.core.chat.entity_effects import apply_snapshot
from voicethere.core.chat.registry import SemContext
from voicethere.core.chat.timeline_actions import UpsertEntity
from voicethere.wire.sem import decode_frame, decode_snapshot, whole_number

CONVERSATIONS = (1, 50, 10_000)
ROUNDS = 7
SECONDS_PER_ROUND = 0.1
HISTORY = 20
MESSAGES = [f"the server is not well: {number}" for number in range(64)]
FRAMES = 2_003
"""A prime: a conversation never gets the frame again that it got last."""
FRAME_CONTENT_CHARS = 640


def named(conversations: int) -> list[str]:
    return [f"conversation-{number}" for number in range(conversations)]


def frame(number: int) -> str:
    """A streaming upsert of some 900 bytes. All have the same version, so that none is outdated."""
    entity = {
        "id": "message-1",
        "kind": "message",
        "createdAtMs": 1_700_000_000_000,
        "updatedAtMs": 1_700_000_000_000 + number,
        "props": {
            "role": "assistant",
            "content": f"{number} " + "x" * FRAME_CONTENT_CHARS,
            "streaming": True,
        },
    }
    data = {"convId": "c", "version": 7, "entity": entity}
    event = {"type": "timeline.upsert", "id": "message-1", "seq": number, "data": data}
    return json.dumps({"sem": True, "event": event})


def snapshot(messages: int) -> str:
    """A timeline of so many short messages."""
    entities = [
        {
            "id": f"message-{number}",
            "kind": "message",
            "createdAtMs": 1_700_000_000_000 + number,
            "updatedAtMs": 1_700_000_000_000 + number,
            "props": {"role": "assistant", "content": f"message {number} of a talk", "streaming": False},
        }
        for number in range(messages)
    ]
    return json.dumps({"convId": "c", "version": messages, "serverTimeMs": 1, "entities": entities})


class ChatCore:
    """Does rounds of work at a number of conversations; each gives the seconds that it took."""

    def __init__(self) -> None:
        self._stores: dict[int, ChatStore] = {}
        self._inputs: dict[tuple[str, int], Iterator[Any]] = {}
        self._texts = [frame(number) for number in range(FRAMES)]
        self._registry = SemRegistry()

    def floor(self, conversations: int, count: int) -> float:
        root: Map[str, int] = Map(dict.fromkeys(named(conversations), -1))
        names = itertools.islice(itertools.cycle(named(conversations)), count)
        started = time.perf_counter()
        for name in names:
            root.set(name, 1)
        return time.perf_counter() - started

    def push_error(self, conversations: int, count: int) -> float:
        store = self._store(conversations)
        dispatch, push_error = store.dispatch, actions.push_error
        inputs = self._next("push_error", conversations, MESSAGES, count)
        started = time.perf_counter()
        for name, message in inputs:
            dispatch(push_error(name, kind="http_error", stage="send", status=500, message=message))
        seconds = time.perf_counter() - started
        assert selectors.select_last_error(store.state, name) == message
        return seconds

    def set_connection_status(self, conversations: int, count: int) -> float:
        dispatch, set_connection_status = self._store(conversations).dispatch, actions.set_connection_status
        inputs = self._next("set_connection_status", conversations, ["connecting", "closed", "idle"], count)
        started = time.perf_counter()
        for name, status in inputs:
            dispatch(set_connection_status(name, status))
        return time.perf_counter() - started

    def frames(self, conversations: int, count: int) -> float:
        store = self._store(conversations)
        dispatch = store.dispatch
        inputs = self._next("frames", conversations, self._texts, count)
        started = time.perf_counter()
        for name, text in inputs:
            event = decode_frame(text)
            assert event is not None
            data = event.data
            entity = checks.decoded_entity(entity_of(data.entity, whole_number(data.version)))
            dispatch(UpsertEntity(name, entity))
        seconds = time.perf_counter() - started
        assert_applied(store, name, text)
        return seconds

    def client_frames(self, conversations: int, count: int) -> float:
        store, apply = self._store(conversations), self._registry.apply
        if ("contexts", conversations) not in self._inputs:
            contexts = [SemContext(name, store) for name in named(conversations)]
            self._inputs["contexts", conversations] = itertools.cycle(contexts)
        inputs = self._next("client_frames", conversations, self._texts, count)
        started = time.perf_counter()
        for (_, text), context in zip(inputs, self._inputs["contexts", conversations], strict=False):
            event = decode_frame(text)
            assert event is not None
            apply(context, event)
        seconds = time.perf_counter() - started
        assert_applied(store, context.conv_id, text)
        return seconds

    def read(self, conversations: int, count: int) -> float:
        inputs = self._next("read", conversations, self._texts, count)
        started = time.perf_counter()
        for _, text in inputs:
            decode_frame(text)
        return time.perf_counter() - started

    def memory(self, conversations: int, messages: int) -> float:
        """Bytes for each conversation that is connected, idle, and has so many messages."""
        names, body, store = named(conversations), snapshot(messages), ChatStore()
        gc.collect()
        tracemalloc.start()
        for name in names:
            store.dispatch(actions.set_connection_status(name, "connected"))
            apply_snapshot(SemContext(name, store), decode_snapshot(body))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held / conversations

    def _store(self, conversations: int) -> ChatStore:
        if conversations not in self._stores:
            store = self._stores[conversations] = ChatStore()
            for name in named(conversations):
                for number in range(HISTORY):
                    message = f"error {number}"
                    store.dispatch(actions.push_error(name, kind="ws_error", stage="stream", message=message))
        return self._stores[conversations]

    def _next(self, what: str, conversations: int, values: list[str], count: int) -> Iterator[Any]:
        # Each conversation in turn, with a value that differs from the one that it had before.
        key = (what, conversations)
        if key not in self._inputs:
            self._inputs[key] = zip(
                itertools.cycle(named(conversations)), itertools.cycle(values), strict=True
            )
        return itertools.islice(self._inputs[key], count)


def assert_applied(store: ChatStore, conv_id: str, text: str) -> None:
    entity = selectors.select_timeline_entity_by_id(store.state, conv_id, "message-1")
    assert entity is not None
    assert entity.props == json.loads(text)["event"]["data"]["entity"]["props"]


def enough(measure: Callable[[int], float]) -> int:
    """How many steps fill a round, found by rounds that also warm up."""
    count, spent = 10, 0.0
    while spent < 4 * SECONDS_PER_ROUND:
        seconds = measure(count)
        spent += seconds
        count = max(10, min(50_000, 4 * count, round(count * SECONDS_PER_ROUND / max(seconds, 1e-9))))
    return count


def load() -> str:
    one, five, _ = os.getloadavg()
    return f"{one:.1f} (1 min), {five:.1f} (5 min) on {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    core, before = ChatCore(), load()
    measured: dict[str, dict[str, int]] = {}
    for measure in (
        core.floor,
        core.push_error,
        core.set_connection_status,
        core.frames,
        core.client_frames,
        core.read,
    ):
        for conversations in CONVERSATIONS:

            def once(
                count: int,
                measure: Callable[[int, int], float] = measure,
                conversations: int = conversations,
            ) -> float:
                return measure(conversations, count)

            count = enough(once)
            rate = statistics.median(count / once(count) for _ in range(ROUNDS))
            measured.setdefault(measure.__name__, {})[str(conversations)] = round(rate)
    if arguments.json:
        print(json.dumps({"load": before, **measured}, indent=2))
        return
    print(f"load: {before}")
    print(f"{'per second':24}" + "".join(f"{f'{count:,} conversations':>22}" for count in CONVERSATIONS))
    for name, rates in measured.items():
        print(f"{name:24}" + "".join(f"{found:>22,}" for found in rates.values()))


if __name__ == "__main__":
    main()
