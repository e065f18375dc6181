"""How many chat actions and frames a second one core takes, at 1, 50 and 10,000 conversations.

    python benchmarks/chat_state.py [--json]

Takes some seconds. Each figure is the best of five rounds on this machine, with the action's making,
checking, completing and reducing in it. The floor is one write to the persistent map alone. Frames are
decoded, validated and applied to the timeline. Compare the columns to see what more conversations cost.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable

from immutables import Map

from voicethere.chat import ChatStore, actions
from voicethere.core.chat.entities import entity_of
from voicethere.wire.sem import decode_frame, whole_number

CONVERSATIONS = (1, 50, 10_000)
ROUNDS = 5
PER_ROUND = 10_000
FRAME_CONTENT_CHARS = 640


def rate(step: Callable[[int], object]) -> int:
    """The best round's steps per second."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for number in range(PER_ROUND):
            step(number)
        best = min(best, time.perf_counter() - started)
    return round(PER_ROUND / best)


def filled(conversations: int) -> tuple[ChatStore, list[str]]:
    """A store without duplicate suppression, in which each conversation has a session and a full history."""
    store = ChatStore(duplicate_window_ms=0)
    names = [f"conversation-{number}" for number in range(conversations)]
    for name in names:
        for number in range(20):
            store.dispatch(
                actions.push_error(name, kind="ws_error", stage="stream", message=f"error {number}")
            )
    return store, names


def floor(conversations: int) -> int:
    """Writes per second to a map of that size."""
    root: Map[str, int] = Map({f"conversation-{number}": -1 for number in range(conversations)})
    names = itertools.cycle(list(root))
    return rate(lambda number: root.set(next(names), number))


def push_error(conversations: int) -> int:
    store, known = filled(conversations)
    names = itertools.cycle(known)
    return rate(
        lambda number: store.dispatch(
            actions.push_error(
                next(names), kind="http_error", stage="send", status=500, message="the server is not well"
            )
        )
    )


def set_connection_status(conversations: int) -> int:
    store, known = filled(conversations)
    names = itertools.cycle(known)
    statuses = itertools.cycle(("connecting", "connected", "closed"))
    return rate(lambda number: store.dispatch(actions.set_connection_status(next(names), next(statuses))))


def frame(number: int) -> str:
    """A streaming upsert of some 900 bytes."""
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
    data = {"convId": "c", "version": number + 1, "entity": entity}
    event = {"type": "timeline.upsert", "id": "message-1", "seq": number, "data": data}
    return json.dumps({"sem": True, "event": event})


def frames(conversations: int) -> int:
    store, known = filled(conversations)
    names = itertools.cycle(known)
    texts = [frame(number) for number in range(PER_ROUND)]

    def step(number: int) -> None:
        event = decode_frame(texts[number])
        if event is None:
            raise SystemExit("the benchmark's own frame was not understood")
        entity = entity_of(event.data.entity, whole_number(event.data.version))
        store.dispatch(actions.upsert_entity(next(names), entity))

    return rate(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    measured = {
        measure.__name__: {str(conversations): measure(conversations) for conversations in CONVERSATIONS}
        for measure in (floor, push_error, set_connection_status, frames)
    }
    if arguments.json:
        print(json.dumps(measured, indent=2))
        return
    print(f"{'per second':24}" + "".join(f"{f'{count:,} conversations':>22}" for count in CONVERSATIONS))
    for name, rates in measured.items():
        print(f"{name:24}" + "".join(f"{found:>22,}" for found in rates.values()))


if __name__ == "__main__":
    main()
