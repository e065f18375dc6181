"""The demo's chat: the same agent, talked to as a conversation over the chat gateway.

The client is the chat runtime; the operator looks at the API. A failing agent is a record in the client's
state, a row, and an entity that a reload shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from voicethere.chat import (
    ChatErrorRecord,
    ChatHttpError,
    ChatStore,
    Conversation,
    ConversationManager,
    SemEvent,
    SemRegistry,
)
from voicethere.cli.demo.observing import expect, milliseconds, session_ended, since, stored_rows
from voicethere.cli.demo.phrases import CRASH_PHRASE
from voicethere.cli.demo.results import ScenarioResult, Timings
from voicethere.cli.ears import STEP_SECONDS, DidNotHappen
from voicethere.errors import SessionErrorEnvelope
from voicethere.errors.chat_codes import session_error_envelope
from voicethere.testing.platform_process import Deployed, Operator

CODE = "AGENT_HANDLER_FAILED"
T = TypeVar("T")


async def chat_turn_raises(
    *, gateway_url: str, operator: Operator, deployed: Deployed, phrase: str, progress: Callable[[str], None]
) -> ScenarioResult:
    """A message is answered; at the next one the handler raises. `gateway_url` is the chat gateway's."""
    faults: list[float] = []
    registry = SemRegistry()
    registry.register("agent.message", lambda _, event: _note_fault(faults, event))
    base_url = f"{gateway_url}/c/{deployed.client_key}"
    async with (
        ConversationManager(ChatStore(), base_url, sem=registry) as manager,
        manager.conversation("demo") as conversation,
    ):
        progress(f"sending “{phrase}”")
        await _send(conversation, phrase)
        await _until(conversation, "the agent's answer", lambda: _said(conversation, f"You said: {phrase}"))
        progress(f"sending “{CRASH_PHRASE}”")
        await _send(conversation, CRASH_PHRASE)
        record = await _until(conversation, "an error record", lambda: conversation.current_error)
        told_at = time.monotonic()
        progress(f"the client's state holds {record.code}")
        records = list(conversation.error_history)
    envelope = _check_records(records)
    expect(bool(faults), "the agent's message ahead of its fault did not arrive")
    rows, stored_at = await stored_rows(operator, deployed.project_id, envelope.session_id)
    await session_ended(operator, deployed.project_id, envelope.session_id)
    expect([row["code"] for row in rows] == [CODE], f"the stored rows are not exactly one {CODE}")
    expect(rows[0]["id"] == record.id, "the record and the row have different ids")
    expect("vth_demo_" not in msgspec.json.encode([records, rows]).decode(), "a secret is in record or row")
    await _check_reload(base_url, record)
    return ScenarioResult(
        name="chat_turn_raises",
        mode="chat",
        session_id=envelope.session_id,
        project_id=deployed.project_id,
        spoken=CRASH_PHRASE,
        answer=f"You said: {phrase}",
        client_events=[envelope],
        records=records,
        stored=rows,
        timings_ms=Timings(
            fault_to_client=milliseconds(told_at - faults[0]),
            fault_to_stored=milliseconds(stored_at - faults[0]),
        ),
    )


def _note_fault(faults: list[float], event: SemEvent) -> None:
    if isinstance(event.data, dict) and event.data.get("type") == "fault":
        faults.append(since(event.data["at"]))


async def _send(conversation: Conversation, text: str) -> None:
    try:
        await conversation.send(text)
    except ChatHttpError as refused:
        raise DidNotHappen(f"the message was not accepted: {refused}") from refused


def _said(conversation: Conversation, text: str) -> bool:
    return any(
        entity.kind == "message"
        and entity.props.get("role") != "user"
        and entity.props.get("content") == text
        for entity in conversation.entities
    )


async def _until(conversation: Conversation, what: str, look: Callable[[], T | None]) -> T:
    try:
        async with asyncio.timeout(STEP_SECONDS):
            async for _ in conversation.changes():
                if found := look():
                    return found
    except TimeoutError:
        pass
    error = conversation.current_error
    known = "" if error is None else f"; the current error: {error.message}"
    raise DidNotHappen(f"{what} did not come within {STEP_SECONDS:g} s{known}")


def _check_records(records: list[ChatErrorRecord]) -> SessionErrorEnvelope:
    """The envelope of the one record that there must be."""
    known = [(record.kind.value, record.stage.value, record.code) for record in records]
    expect(known == [("runtime_error", "stream", CODE)], f"the client's error history is {known}")
    record = records[0]
    expect(record.recoverable is False, "the error that ended the session calls itself recoverable")
    envelope = session_error_envelope(record.details)
    if envelope is None:
        raise DidNotHappen("the record's details are not the error's envelope")
    expect(record.message == envelope.message, "the record says something else than its envelope")
    return envelope


async def _check_reload(base_url: str, record: ChatErrorRecord) -> None:
    """Another client of the same conversation sees what happened."""
    async with (
        ConversationManager(ChatStore(), base_url) as manager,
        manager.conversation("demo") as conversation,
    ):
        await _until(
            conversation,
            "the error in the timeline after a reload",
            lambda: any(
                entity.kind == "error" and entity.id == record.id for entity in conversation.entities
            ),
        )
