"""`voicethere chat --json-events`: a conversation as lines of JSON on standard output.

| `event` | fields |
| --- | --- |
| `conversation` | `conv_id` |
| `connection` | `status` |
| `sent` | `prompt` |
| `message` | `id`, `role`, `content`, `streaming`, `version` |
| `entity` | `id`, `kind`, `props`, `version`: anything but a message |
| `removed` | `id` |
| `streaming` | `streaming`; at the end also `model`, `turn` |
| `error` | `error`: the record |
| `closed` | `ok`, `problems` |

Lines are ASCII (everything else is escaped), so that a terminal obeys nothing in them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from voicethere.chat import (
    ChatErrorRecord,
    ChatHttpError,
    ConversationManager,
    TimelineEntity,
    selectors,
)
from voicethere.cli.failure import Failure
from voicethere.core.chat.actions import Action
from voicethere.core.chat.state import ChatState, ConnectionStatus
from voicethere.core.chat.timeline_actions import AddEntity, UpsertEntity

SETTLE_SECONDS = 1.0
"""A reply is done when nothing streams and nothing came for so long: an agent may say several things."""

Write = Callable[[dict[str, Any]], None]


def to_stdout(line: dict[str, Any]) -> None:
    """Write one line.

    Raises:
        OSError: nobody reads it any more.
    """
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def converse(
    manager: ConversationManager,
    conv_id: str,
    prompts: AsyncIterator[str],
    *,
    wait_seconds: float,
    settle_seconds: float = SETTLE_SECONDS,
    write: Write = to_stdout,
) -> bool:
    """Send each prompt when the reply to the one before is done, and tell what happens.

    Returns whether every prompt was accepted and answered in time, by a session that did not fail.

    Raises:
        Failure: what was given to be sent cannot be.
        OSError: `write` did: nobody reads the lines.
    """
    write({"event": "conversation", "conv_id": conv_id})
    teller = _Teller(manager.store.state, conv_id, write)
    unsubscribe = manager.store.subscribe(teller.changed)
    problems: list[str] = []
    try:
        async with manager.conversation(conv_id) as conversation:
            if not await teller.connected(wait_seconds):
                problems.append(f"not connected within {wait_seconds:g} s")
            else:
                async for prompt in prompts:
                    turn = teller.begin()
                    write({"event": "sent", "prompt": prompt})
                    try:
                        await conversation.send(prompt)
                    except (ChatHttpError, ValueError) as refused:
                        problems.append(f"not sent: {refused}")
                        continue
                    problem = await turn.done(wait_seconds, settle_seconds)
                    teller.require_reader()
                    if problem is not None:
                        problems.append(problem)
    except Failure as problem:  # of what was given to be sent
        problems.append(problem.message)
        raise
    except asyncio.CancelledError:  # ^C
        problems.append("interrupted")
        raise
    finally:
        unsubscribe()
        write({"event": "closed", "ok": not problems, "problems": problems})
    return not problems


class _Turn:
    """One prompt and what came of it."""

    def __init__(self) -> None:
        self.moved = asyncio.Event()
        self.answered = False
        self.streaming = False
        self.failed: str | None = None

    async def done(self, wait_seconds: float, settle_seconds: float) -> str | None:
        """Wait for the whole reply; what went wrong, or None."""
        try:
            async with asyncio.timeout(wait_seconds):
                while self.failed is None:
                    self.moved.clear()
                    settled = self.answered and not self.streaming
                    try:
                        await asyncio.wait_for(self.moved.wait(), settle_seconds if settled else None)
                    except TimeoutError:
                        if settled and not self.moved.is_set():
                            return None
                        raise
        except TimeoutError:
            return f"no whole reply within {wait_seconds:g} s"
        return self.failed


class _Teller:
    """Turns changes of the state into lines. Every change of the conversation is told; none is summed up."""

    def __init__(self, state: ChatState, conv_id: str, write: Write) -> None:
        self._conv_id = conv_id
        self._write = write
        self._state = state
        self._entities: dict[str, TimelineEntity] = {}
        self._turn = _Turn()
        self._moved = asyncio.Event()
        self._unread: OSError | None = None

    def begin(self) -> _Turn:
        """What comes from now on answers a new prompt."""
        self._turn = _Turn()
        return self._turn

    async def connected(self, wait_seconds: float) -> bool:
        """Wait until the socket is open."""
        try:
            async with asyncio.timeout(wait_seconds):
                while self._status() is not ConnectionStatus.CONNECTED:
                    self.require_reader()
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def require_reader(self) -> None:
        """Raise what writing a line raised."""
        if self._unread is not None:
            raise self._unread

    def changed(self, state: ChatState, action: Action) -> None:
        """Tell what is different."""
        before, self._state = self._state, state
        conv_id = self._conv_id
        try:
            if state.chat_session.get(conv_id) is not before.chat_session.get(conv_id):
                self._tell_session(before, state)
            if state.timeline.get(conv_id) is not before.timeline.get(conv_id):
                self._tell_timeline(state, action)
        except OSError as unread:
            # The store would log it and go on; this is the end of the command.
            self._unread = unread
            self._turn.failed = "nobody reads the lines"
        self._moved.set()
        self._turn.moved.set()

    def _status(self) -> ConnectionStatus:
        return selectors.select_connection_status(self._state, self._conv_id)

    def _tell_session(self, before: ChatState, state: ChatState) -> None:
        conv_id = self._conv_id
        status = selectors.select_connection_status(state, conv_id)
        if status is not selectors.select_connection_status(before, conv_id):
            self._write({"event": "connection", "status": status.value})
        known = _errors(before, conv_id)
        for record in _errors(state, conv_id):
            if all(record is not other for other in known):
                self._tell_error(record)
        streaming = selectors.select_is_streaming(state, conv_id)
        if streaming is not selectors.select_is_streaming(before, conv_id):
            self._turn.streaming = streaming
            line: dict[str, Any] = {"event": "streaming", "streaming": streaming}
            if not streaming:
                line["model"] = selectors.select_model_name(state, conv_id)
                line["turn"] = _turn(state, conv_id)
            self._write(line)

    def _tell_error(self, record: ChatErrorRecord) -> None:
        self._write({"event": "error", "error": msgspec.to_builtins(record)})
        if record.code is not None and not record.recoverable:
            self._turn.failed = f"the session failed: {record.code}"

    def _tell_timeline(self, state: ChatState, action: Action) -> None:
        if isinstance(action, (AddEntity, UpsertEntity)):
            # One entity changed: looking at all of them for each frame would make long conversations slow.
            entity = selectors.select_timeline_entity_by_id(state, self._conv_id, action.entity.id)
            if entity is not None:
                self._tell_entity(entity)
            return
        entities = selectors.select_timeline_entities(state, self._conv_id)
        for gone in self._entities.keys() - {entity.id for entity in entities}:
            del self._entities[gone]
            self._write({"event": "removed", "id": gone})
        for entity in entities:
            self._tell_entity(entity)

    def _tell_entity(self, entity: TimelineEntity) -> None:
        if self._entities.get(entity.id) is entity:
            return
        self._entities[entity.id] = entity
        line: dict[str, Any] = {"event": "entity", "id": entity.id}
        if entity.kind == "message":
            props = entity.props
            line |= {
                "event": "message",
                "role": props.get("role"),
                "content": props.get("content"),
                "streaming": props.get("streaming") is True,
            }
            if not entity.is_of_user:
                self._turn.answered = True
        else:
            line |= {"kind": entity.kind, "props": entity.props}
        self._write(line | {"version": entity.version})


def _errors(state: ChatState, conv_id: str) -> tuple[ChatErrorRecord, ...]:
    """The recorded ones, and the current one where it was shown without being recorded."""
    recorded = selectors.select_error_history(state, conv_id)
    current = selectors.select_current_error(state, conv_id)
    if current is None or any(current.id == record.id for record in recorded):
        return recorded
    return (*recorded, current)


def _turn(state: ChatState, conv_id: str) -> dict[str, Any] | None:
    """What is known of the last turn."""
    stats = selectors.select_current_turn_stats(state, conv_id)
    if stats is None:
        return None
    return {name: value for name, value in msgspec.to_builtins(stats).items() if value is not None}
