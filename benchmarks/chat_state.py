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

from immutables import Map

from voicethere.chat import ChatStore, SemRegistry, actions
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
        self._conversations: dict[tuple[str, int], Iterator[str]] = {}
        self._texts = [frame(number) for number in range(FRAMES)]
        self._turn = itertools.count()
        self._registry = SemRegistry()
        self._contexts: dict[int, Iterator[SemContext]] = {}

    def floor(self, conversations: int, count: int) -> float:
        root: Map[str, int] = Map(dict.fromkeys(named(conversations), -1))
        names = itertools.cycle(named(conversations))
        return timed(count, lambda number: root.set(next(names), number))

    def push_error(self, conversations: int, count: int) -> float:
        store, names, turn = self._store(conversations), self._names("errors", conversations), self._turn
        dispatch, push_error = store.dispatch, actions.push_error

        def step(number: int) -> None:
            message = MESSAGES[next(turn) & 63]
            dispatch(push_error(next(names), kind="http_error", stage="send", status=500, message=message))

        return timed(count, step)

    def set_connection_status(self, conversations: int, count: int) -> float:
        store, names = self._store(conversations), self._names("statuses", conversations)
        statuses = itertools.cycle(("connecting", "connected", "closed"))
        return timed(
            count, lambda number: store.dispatch(actions.set_connection_status(next(names), next(statuses)))
        )

    def frames(self, conversations: int, count: int) -> float:
        store, names, texts, turn = (
            self._store(conversations),
            self._names("frames", conversations),
            self._texts,
            self._turn,
        )

        def step(number: int) -> None:
            event = decode_frame(texts[next(turn) % FRAMES])
            assert event is not None
            data = event.data
            entity = checks.decoded_entity(entity_of(data.entity, whole_number(data.version)))
            store.dispatch(UpsertEntity(next(names), entity))

        return timed(count, step)

    def client_frames(self, conversations: int, count: int) -> float:
        if conversations not in self._contexts:
            store = self._store(conversations)
            self._contexts[conversations] = itertools.cycle(
                [SemContext(name, store) for name in named(conversations)]
            )
        contexts, apply, texts, turn = (
            self._contexts[conversations],
            self._registry.apply,
            self._texts,
            self._turn,
        )

        def step(number: int) -> None:
            event = decode_frame(texts[next(turn) % FRAMES])
            assert event is not None
            apply(next(contexts), event)

        return timed(count, step)

    def read(self, conversations: int, count: int) -> float:
        texts = self._texts
        return timed(count, lambda number: decode_frame(texts[number % FRAMES]))

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

    def _names(self, what: str, conversations: int) -> Iterator[str]:
        key = (what, conversations)
        if key not in self._conversations:
            self._conversations[key] = itertools.cycle(named(conversations))
        return self._conversations[key]


def timed(count: int, step: Callable[[int], object]) -> float:
    started = time.perf_counter()
    for number in range(count):
        step(number)
    return time.perf_counter() - started


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
