"""A chat client under test: a real server, a store, and timers that run out when a test says so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from voicethere.chat import (
    ChatErrorRecord,
    ChatStore,
    ConversationManager,
    EventLog,
    TimelineEntity,
    selectors,
)
from voicethere.testing.chat_changes import until_holds
from voicethere.testing.chat_server import ScriptedChatServer
from voicethere.testing.clock import ManualClock

CONV = "conv-1"
SECONDS = 10.0


class Timers:
    """A `sleep` whose time does not pass by itself. `asked` are all waits that were ever asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._running: list[tuple[float, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        entry = (seconds, asyncio.get_running_loop().create_future())
        self._running.append(entry)
        self._changed.set()
        try:
            await entry[1]
        finally:
            self._running.remove(entry)
            self._changed.set()

    @property
    def running(self) -> list[float]:
        """The waits that run."""
        return [seconds for seconds, _ in self._running]

    async def begun(self, condition: Callable[[float], bool]) -> None:
        """Wait until a wait runs that meets the condition."""
        async with asyncio.timeout(SECONDS):
            while not any(map(condition, self.running)):
                self._changed.clear()
                await self._changed.wait()

    async def none_left(self) -> None:
        """Wait until no wait runs."""
        async with asyncio.timeout(SECONDS):
            while self._running:
                self._changed.clear()
                await self._changed.wait()

    async def fire(self, condition: Callable[[float], bool] = lambda _: True) -> float:
        """Let the first wait that meets the condition run out, once there is one; how long it was."""
        async with asyncio.timeout(SECONDS):
            while True:
                for seconds, future in self._running:
                    if not future.done() and condition(seconds):
                        future.set_result(None)
                        return seconds
                self._changed.clear()
                await self._changed.wait()


class Rig:
    """A manager with its store, log, timers and clock, and the server that it talks to."""

    def __init__(self, server: ScriptedChatServer, **options: Any) -> None:
        self.server = server
        self.timers = Timers()
        self.clock = ManualClock()
        self.store = options.pop("store", None) or ChatStore()
        self.log = EventLog()
        options.setdefault("sleep", self.timers)
        base_url = options.pop("base_url", server.base_url)
        self.manager = ConversationManager(self.store, base_url, log=self.log, clock=self.clock, **options)
        self.seen: list[str] = []
        """Lifecycle phases of CONV, also those that the log has forgotten."""
        self.statuses: list[str] = []
        self.log.subscribe(
            lambda entry: self.seen.append(entry.type) if entry.family == "lifecycle" else None, CONV
        )
        self.store.subscribe(self._note_status)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds: looked at after each change of the store."""
        await until_holds(self.store, condition, seconds=SECONDS)

    @property
    def status(self) -> str:
        return selectors.select_connection_status(self.store.state, CONV).value

    @property
    def errors(self) -> tuple[ChatErrorRecord, ...]:
        return selectors.select_error_history(self.store.state, CONV)

    @property
    def kinds(self) -> list[str]:
        """Kind and stage of each record."""
        return [f"{error.kind}/{error.stage}" for error in self.errors]

    @property
    def entities(self) -> dict[str, TimelineEntity]:
        return {entity.id: entity for entity in selectors.select_timeline_entities(self.store.state, CONV)}

    @property
    def texts(self) -> list[str]:
        """What the messages say, in order."""
        return [
            str(entity.props.get("content"))
            for entity in selectors.select_timeline_entities(self.store.state, CONV)
            if entity.kind == "message"
        ]

    @property
    def is_streaming(self) -> bool:
        return selectors.select_is_streaming(self.store.state, CONV)

    def _note_status(self, state: object, action: object) -> None:
        if not self.statuses or self.statuses[-1] != self.status:
            self.statuses.append(self.status)


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    """A server and a manager. Without `reconnect` it does not reconnect."""
    options.setdefault("reconnect", None)
    server_options = {
        name: options.pop(name) for name in ("on_prompt", "server_ssl", "base") if name in options
    }
    if "server_ssl" in server_options:
        server_options["ssl_context"] = server_options.pop("server_ssl")
    async with ScriptedChatServer(**server_options) as server:
        made = Rig(server, **options)
        async with made.manager:
            yield made


_numbers = itertools.count(1)


def upsert(entity_id: str, content: str, version: int, *, seq: float | None = None, **props: Any) -> Any:
    """A frame that shows a message."""
    event: dict[str, Any] = {
        "type": "timeline.upsert",
        "id": entity_id,
        "data": {
            "convId": CONV,
            "version": version,
            "entity": {
                "id": entity_id,
                "kind": "message",
                "createdAtMs": next(_numbers),
                "props": {"role": "assistant", "content": content, "streaming": False, **props},
            },
        },
    }
    if seq is not None:
        event["seq"] = seq
    return {"sem": True, "event": event}


def delta(stream_id: str, text: str) -> Any:
    """A frame that keeps a stream going."""
    data = {"id": stream_id, "delta": text, "cumulative": text}
    return {"sem": True, "event": {"type": "llm.delta", "id": stream_id, "data": data}}
