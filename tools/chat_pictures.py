"""Pictures of `voicethere chat` for the docs: the real screens on states made by hand, without a server.

    python -m tools.chat_pictures docs/images

The same code gives the same pictures, byte for byte: the clock stands still, in UTC.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from voicethere.chat import ChatStore, EventLog, TimelineEntity, actions
from voicethere.cli.chat.app import ChatApp
from voicethere.cli.chat.talk import Talk
from voicethere.core.chat.state import TurnStats
from voicethere.testing.clock import ManualClock

CONV = "3f9c1a7be2d84c05"
# Textual's pictures load a font from elsewhere; one in a repository loads nothing.
_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
_DRAWN = 6


class _Nobody:
    """A conversation in which nothing happens."""

    window_id = "picture"

    async def send(self, text: str) -> None: ...

    async def retry(self) -> None: ...

    async def reconnect(self) -> None: ...

    def clear_error(self) -> None: ...


def _message(number: int, role: str, content: str, streaming: bool = False) -> Any:
    props = {"role": role, "content": content, "streaming": streaming}
    return actions.upsert_entity(CONV, TimelineEntity(f"m{number}", "message", 1, props=props))


def _talked() -> list[Any]:
    """A conversation that goes well."""
    return [
        actions.set_connection_status(CONV, "connected"),
        actions.set_model_name(CONV, "order-desk-2"),
        actions.add_conversation_usage(CONV, input_tokens=1_204, output_tokens=311, cached_tokens=640),
        actions.set_turn_stats(
            CONV, TurnStats(input_tokens=402, output_tokens=96, duration_ms=2_140, tokens_per_second=44.9)
        ),
        _message(1, "user", "Where is my order 1042?"),
        _message(2, "assistant", "It left our warehouse this morning and should reach you on Thursday."),
        _message(3, "user", "And can I still change the address?"),
    ]


def _streaming() -> list[Any]:
    return [
        *_talked(),
        actions.mark_stream_start(CONV),
        actions.set_is_streaming(CONV, True),
        actions.update_stream_tokens(CONV, 17),
        _message(4, "assistant", "Yes, until it is handed to the driver. Which address", streaming=True),
    ]


def _failed() -> list[Any]:
    return [
        *_talked(),
        actions.push_error(
            CONV,
            kind="http_error",
            stage="send",
            status=503,
            message="The gateway cannot reach its database.",
            details={"url": "https://voice.example/c/…/chat"},
        ),
        actions.push_error(
            CONV,
            kind="runtime_error",
            stage="stream",
            code="AGENT_HANDLER_FAILED",
            message="Sorry, something went wrong.",
            recoverable=False,
        ),
    ]


def _log(log: EventLog, clock: ManualClock) -> None:
    entries = [
        ("lifecycle", "connect.begin", "profile none"),
        ("lifecycle", "ws.open", "socket open"),
        ("lifecycle", "hydrate.start", "GET /api/timeline"),
        ("lifecycle", "frame.buffered", "seq 11"),
        ("lifecycle", "hydrate.snapshot.applied", "3 entities, version 10"),
        ("lifecycle", "replay.begin", "1 frame"),
        ("lifecycle", "replay.complete", "1 frame"),
        ("lifecycle", "hydrate.complete", "in 38 ms"),
        ("prompt", "prompt.send", "And can I still change the address?"),
        ("timeline", "timeline.upsert", "message m3 v11 'And can I still change the address?'"),
        ("llm", "llm.start", "m4 assistant"),
        ("llm", "llm.delta", "m4 +'Yes, until ' (11 chars)"),
        ("timeline", "timeline.upsert", "message m4 v12 streaming 'Yes, until'"),
        ("llm", "llm.delta", "m4 +'it is handed to the driver.' (39 chars)"),
        ("error", "session.error", "AGENT_HANDLER_FAILED Sorry, something went wrong."),
    ]
    for family, type_, summary in entries:
        clock.advance(0.4)
        log.record(CONV, family, type_, summary)


async def _picture(size: tuple[int, int], state: Sequence[Any], keys: Sequence[str] = ()) -> str:
    clock = ManualClock()
    store, log = (
        ChatStore(clock=clock, new_id=iter(f"e-{n}" for n in range(99)).__next__),
        EventLog(clock=clock),
    )
    _log(log, clock)

    @asynccontextmanager
    async def opening() -> AsyncIterator[Talk]:
        yield _Nobody()

    app = ChatApp(store, log, CONV, opening(), export_folder=Path(tempfile.gettempdir()))
    async with app.run_test(size=size) as pilot:
        for action in state:
            store.dispatch(action)
        for key in ("", *keys):
            if key:
                await pilot.press(key)
            for _ in range(_DRAWN):
                await pilot.pause()
        return _FONT.sub("", app.export_screenshot(title="voicethere chat", simplify=True))


async def _pictures() -> dict[str, str]:
    return {
        "chat.svg": await _picture((80, 20), _streaming()),
        "chat-error.svg": await _picture((80, 20), _failed()),
        "chat-errors.svg": await _picture((80, 20), _failed(), ["ctrl+t", "enter"]),
        "chat-debug.svg": await _picture((80, 20), _failed(), ["ctrl+g"]),
        "chat-narrow.svg": await _picture((40, 20), _failed()),
    }


def main() -> None:
    """Write them into the folder that is named."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    os.environ.pop("NO_COLOR", None)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in asyncio.run(_pictures()).items():
        lines = (line.rstrip() for line in picture.splitlines())
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
