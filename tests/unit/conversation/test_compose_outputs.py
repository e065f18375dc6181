"""What each output of a chat session becomes on the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from voicethere.core.conversation import (
    MAX_PROPS_BYTES,
    Composed,
    ConversationState,
    SessionEnd,
    StoredEntity,
    advance,
    compose,
    compose_prompt,
    conversation_id_problem,
    number,
    number_prompt,
    placed,
    prompt_problem,
    resend,
    snapshot,
)
from voicethere.core.conversation.limits import MAX_ENDED_STREAMS
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import (
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
)
from voicethere.wire.sem import decode_frame, decode_snapshot

NOW = 1_750_000_000_000
IN_SESSION = ConversationState(session_id="s1", session_open=True, version=7, seq=20)


class Kept:
    """A conversation in memory, for one session after the other."""

    def __init__(self) -> None:
        self.state = IN_SESSION
        self.entities: dict[str, StoredEntity] = {}

    def send(self, body: ChatBody, now_ms: int = NOW) -> list[dict[str, Any]]:
        """The events of the frames of an output, as JSON."""
        state = placed(self.state, "s1", self.state.outputs + 1)
        assert isinstance(state, ConversationState)
        composed = compose(body, now_ms)
        advanced = advance(state, self.entities, composed, "s1")
        self.state = advanced.state
        self.entities.update(advanced.entities)
        frames = number("c1", composed, advanced.applied)
        for frame in frames:
            assert decode_frame(frame) is not None
        return [msgspec.json.decode(frame)["event"] for frame in frames]


def refusal(payload: str) -> str:
    composed = compose(ChatPassed(payload=payload), NOW)
    assert (composed.entities, composed.frames, composed.streams) == ((), (), ())
    assert composed.refused is not None
    return composed.refused


def frame(event_type: str, event_id: str = "x", **data: Any) -> str:
    return msgspec.json.encode(
        {"sem": True, "event": {"type": event_type, "id": event_id, "data": data}}
    ).decode()


@pytest.mark.states(
    "sem-chat/text/message-entity",
    "sem-chat/frame/shape",
    "sem-chat/frame/seq",
    "sem-chat/entity/fields",
    "sem-chat/version/upsert",
)
def test_a_prompt_is_echoed_as_the_users_message() -> None:
    (echo,) = number_prompt("c1", compose_prompt("Hi\0", "u1", NOW), version=3, seq=9)
    assert msgspec.json.decode(echo) == {
        "sem": True,
        "event": {
            "type": "timeline.upsert",
            "id": "u1",
            "seq": 9,
            "data": {
                "convId": "c1",
                "version": 3,
                "entity": {
                    "id": "u1",
                    "kind": "message",
                    "createdAtMs": NOW,
                    "updatedAtMs": NOW,
                    "props": {"role": "user", "content": "Hi\0", "streaming": False},
                    "meta": {},
                },
            },
        },
    }


@pytest.mark.states("sem-chat/gateway/speak", "sem-chat/text/message-entity")
def test_a_message_is_one_upsert() -> None:
    (event,) = Kept().send(ChatMessage(speech_id="s1-1", text="Hello"))
    assert (event["type"], event["id"], event["seq"], event["data"]["version"]) == (
        "timeline.upsert",
        "s1-1",
        21,
        8,
    )
    assert event["data"]["entity"]["props"] == {"role": "assistant", "content": "Hello", "streaming": False}


@pytest.mark.states("sem-chat/text/one-id", "sem-chat/text/full-content", "sem-chat/gateway/speak-stream")
def test_a_streamed_reply_has_one_id_and_all_of_its_text_each_time() -> None:
    kept = Kept()
    events = kept.send(ChatStreamStart(speech_id="r"))
    events += kept.send(ChatStreamText(speech_id="r", delta="He", cumulative="He"), NOW + 100)
    events += kept.send(ChatStreamText(speech_id="r", delta="y", cumulative="Hey"), NOW + 200)
    events += kept.send(ChatStreamEnd(speech_id="r", text="Hey", complete=True), NOW + 350)
    assert {event["id"] for event in events} == {"r"}
    steps = [event for event in events if event["type"] != "timeline.upsert"]
    assert [event["type"] for event in steps] == ["llm.start", "llm.delta", "llm.delta", "llm.final"]
    assert [event["data"] for event in steps] == [
        {"id": "r", "role": "assistant"},
        {"id": "r", "delta": "He", "cumulative": "He"},
        {"id": "r", "delta": "y", "cumulative": "Hey"},
        {"id": "r", "text": "Hey"},
    ]
    assert [event.get("metadata") for event in steps] == [None, None, None, {"durationMs": 250}]
    # The message arrives with its first text.
    upserts = [event["data"]["entity"] for event in events[2::2]]
    assert [(e["props"]["content"], e["props"]["streaming"]) for e in upserts] == [
        ("He", True),
        ("Hey", True),
        ("Hey", False),
    ]
    assert {e["createdAtMs"] for e in upserts} == {NOW + 100}
    assert [event["seq"] for event in events] == list(range(21, 28))
    assert kept.state.streams == ()


@pytest.mark.states("sem-chat/text/without-text", "sem-chat/version/order")
def test_a_reply_takes_its_place_with_its_first_text() -> None:
    """A client does not show it before: whoever reloads must not find it elsewhere, nor an empty one."""
    kept = Kept()
    kept.send(ChatStreamStart(speech_id="r"))
    kept.send(ChatStreamText(speech_id="r", delta=" \n", cumulative=" \n"))
    assert [stream.id for stream in kept.state.streams] == ["r"]
    kept.send(ChatMessage(speech_id="m", text="Meanwhile"))
    kept.send(ChatStreamText(speech_id="r", delta="Hi", cumulative=" \nHi"))
    kept.send(ChatStreamStart(speech_id="silent"))
    events = kept.send(ChatStreamEnd(speech_id="silent", text="", complete=False))
    assert [(event["type"], event["data"]) for event in events] == [
        ("llm.final", {"id": "silent", "text": ""})
    ]
    assert kept.send(ChatMessage(speech_id="blank", text=" ")) == []
    positions = {entity.id: entity.position for entity in kept.entities.values()}
    assert sorted(positions, key=lambda name: positions[name]) == ["m", "r"]
    assert [stream.id for stream in kept.state.streams] == ["r"]


@pytest.mark.states(
    "sem-chat/text/end-before-error",
    "sem-chat/gateway/error-frame",
    "sem-chat/gateway/error-entity",
    "sem-chat/gateway/error-id",
)
@pytest.mark.parametrize("recoverable", [True, False])
def test_an_error_ends_every_stream_first(recoverable: bool) -> None:
    kept = Kept()
    kept.send(ChatStreamText(speech_id="r", delta="He", cumulative="He"))
    kept.send(ChatPassed(payload=frame("llm.thinking.delta", "t", delta="Hm")))
    kept.send(ChatPassed(payload=frame("llm.delta", "bare", delta="x")))
    envelope = SessionErrorEnvelope(
        code="AGENT_CHILD_CRASHED", message="Sorry.", session_id="s1", stack="at x", recoverable=recoverable
    )
    events = kept.send(ChatFailure(error_id="e1", envelope=envelope), NOW + 10)
    assert [(event["type"], event["id"]) for event in events] == [
        ("llm.final", "r"),
        ("timeline.upsert", "r"),
        ("llm.thinking.final", "t"),
        ("llm.final", "bare"),
        ("session.error", "e1"),
        ("timeline.upsert", "e1"),
    ]
    assert events[0]["data"] == {"id": "r", "text": "He"}
    assert events[1]["data"]["entity"]["props"]["content"] == "He"
    assert events[4]["data"] == msgspec.to_builtins(envelope)
    error = events[5]["data"]["entity"]
    assert error["kind"] == "error"
    assert error["props"] == {
        "code": "AGENT_CHILD_CRASHED",
        "message": "Sorry.",
        "recoverable": recoverable,
        "sessionId": "s1",
    }
    assert kept.state.session_open is recoverable


def test_the_streams_of_another_session_go_on() -> None:
    kept = Kept()
    kept.send(ChatStreamStart(speech_id="r"))
    kept.state = msgspec.structs.replace(kept.state, previous_session_id="s0")
    late = compose(ChatClosed(end_reason=EndReason.ERROR), NOW)
    advanced = advance(kept.state, kept.entities, late, "s0")
    assert (advanced.applied.ended, advanced.state) == ((), kept.state)


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (ChatClosed(end_reason=EndReason.CLIENT_CLOSE_SIGNAL), SessionEnd.CLEAN),
        (ChatClosed(end_reason=EndReason.IDLE_TIMEOUT), SessionEnd.CLEAN),
        (ChatClosed(end_reason=EndReason.RUNNER_SHUTDOWN), SessionEnd.CLEAN),
        (ChatClosed(end_reason=EndReason.AGENT_ERROR), SessionEnd.FAILED),
        (ChatClosed(end_reason=EndReason.ERROR), SessionEnd.FAILED),
        *(
            (
                ChatFailure(
                    error_id="e",
                    envelope=SessionErrorEnvelope(
                        code=code, message="m", session_id="s1", recoverable=recoverable
                    ),
                ),
                end,
            )
            for code, recoverable, end in (
                ("AGENT_HANDLER_FAILED", False, SessionEnd.FAILED),
                ("AGENT_CHILD_CRASHED", True, None),
                ("SESSION_IDLE_TIMEOUT", False, SessionEnd.CLEAN),
            )
        ),
        (ChatMessage(speech_id="r", text="x"), None),
    ],
)
def test_how_an_output_ends_the_session(body: ChatBody, end: SessionEnd | None) -> None:
    assert compose(body, NOW).session_end is end


# ------------------------------------------------------------------ what an agent passes


@pytest.mark.states("sem-chat/gateway/send-other")
@pytest.mark.parametrize(
    "payload",
    ['{"a":[null,1.5,12345678901234567890123]}', "null", '"x"', '{"sem":true}', '{"sem":false}', "[]"],
)
def test_what_is_no_sem_frame_is_wrapped(payload: str) -> None:
    (event,) = Kept().send(ChatPassed(payload=payload))
    assert event == {
        "type": "agent.message",
        "id": "agent.message-21",
        "data": msgspec.json.decode(payload),
        "seq": 21,
    }


@pytest.mark.states("sem-chat/gateway/send-sem")
def test_a_sem_frame_is_passed_on_with_the_conversations_own_seq() -> None:
    payload = (
        '{"sem":true,"event":{"type":"llm.final","id":"t","data":{"text":"x","own":[1]},"seq":999,'
        '"metadata":{"usage":{"inputTokens":3}},"stream_id":"st"}}'
    )
    (event,) = Kept().send(ChatPassed(payload=payload))
    assert event == {
        "type": "llm.final",
        "id": "t",
        "data": {"text": "x", "own": [1]},
        "metadata": {"usage": {"inputTokens": 3}},
        "seq": 21,
        "stream_id": "st",
    }
    (event,) = Kept().send(ChatPassed(payload='{"sem":true,"event":{"type":"shop.cart","id":"c"}}'))
    assert event == {"type": "shop.cart", "id": "c", "data": None, "seq": 21}


@pytest.mark.states("sem-chat/entity/sender-strict", "sem-chat/entity/null", "sem-chat/version/upsert")
def test_an_upsert_of_the_agents_gets_the_conversations_version_and_strict_types() -> None:
    entity = {"id": "n", "kind": "note", "createdAtMs": "1700000000000", "props": {"consumedAt": None}}
    payload = frame("timeline.upsert", "n", convId="another", version="99", entity=entity)
    (event,) = Kept().send(ChatPassed(payload=payload))
    assert event["data"] == {
        "convId": "c1",
        "version": 8,
        "entity": {
            "id": "n",
            "kind": "note",
            "createdAtMs": 1_700_000_000_000,
            "updatedAtMs": NOW,
            "props": {"consumedAt": None},
            "meta": {},
        },
    }


@pytest.mark.parametrize("moment", [0, -5, NOW + 1, "9223372036854775807"])
def test_a_time_that_makes_no_sense_is_now(moment: object) -> None:
    entity = {"id": "n", "kind": "note", "createdAtMs": moment, "updatedAtMs": moment}
    (event,) = Kept().send(ChatPassed(payload=frame("timeline.upsert", entity=entity)))
    sent = event["data"]["entity"]
    assert (sent["createdAtMs"], sent["updatedAtMs"]) == (NOW, NOW)


@pytest.mark.states("sem-chat/entity/sender-strict", "sem-chat/entity/meta")
@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("{", "not sent: the frame is not JSON"),
        (frame("session.error", code="X", message="m", session_id="s"), "session.error is of the platform's"),
        (frame("timeline.upsert", entity={"id": "e", "kind": "error"}), "kind error is of the platform's"),
        (
            frame("timeline.upsert", entity={"id": "m", "kind": "message", "props": {"role": "user"}}),
            "role user is the user's",
        ),
        (frame("timeline.upsert", entity={"id": "m"}), "data of 'timeline.upsert' is wrong"),
        (frame("timeline.upsert", entity={"id": "m", "kind": "k", "meta": {"a": 1}}), "is wrong"),
        (frame("timeline.upsert", entity={"id": "m", "kind": "k", "createdAtMs": 1.5}), "is wrong"),
        (frame("timeline.upsert", entity={"id": "a\0", "kind": "k"}), "entity.id must not contain control"),
        (frame("timeline.upsert", entity={"id": "x" * 201, "kind": "k"}), "at most 200 characters, not 201"),
        (
            frame("timeline.upsert", entity={"id": "x", "kind": "k" * 101}),
            "entity.kind must have at most 100",
        ),
        (frame("llm.start", ""), "event.id must not be empty"),
        (f'"{"x" * MAX_PROPS_BYTES}"', f"may have {MAX_PROPS_BYTES} bytes"),
    ],
)
def test_what_an_agent_must_not_send_is_refused_in_words(payload: str, words: str) -> None:
    assert words in refusal(payload)


def test_an_agent_cannot_speak_as_the_user_step_by_step() -> None:
    kept = Kept()
    note = {"id": "n", "kind": "note", "props": {"role": "user", "content": "forged"}}
    assert len(kept.send(ChatPassed(payload=frame("timeline.upsert", entity=note)))) == 1
    assert (
        kept.send(ChatPassed(payload=frame("timeline.upsert", entity={"id": "n", "kind": "message"}))) == []
    )
    assert kept.entities["n"].kind == "note"
    assert (kept.state.version, kept.state.seq, kept.state.outputs) == (8, 21, 2)


@pytest.mark.parametrize("text", ["x" * 300_000, "\0" * 300_000, "\U0001f635é" * 100_000, '"\\' * 150_000])
def test_a_text_that_is_too_long_is_cut_where_all_can_see_it(text: str) -> None:
    (event,) = Kept().send(ChatMessage(speech_id="r", text=text))
    props = event["data"]["entity"]["props"]
    assert props["content"].endswith("…")
    assert MAX_PROPS_BYTES * 0.9 < len(msgspec.json.encode(props)) <= MAX_PROPS_BYTES
    body = ChatStreamText(speech_id="r", delta=text, cumulative=text)
    delta, upsert = Kept().send(body)
    assert delta["data"]["cumulative"] == upsert["data"]["entity"]["props"]["content"] == props["content"]


# ------------------------------------------------------------------ snapshots and what is sent again


@pytest.mark.states("sem-chat/get-timeline")
def test_a_snapshot_and_what_is_sent_again_are_read_without_a_problem() -> None:
    kept = Kept()
    kept.send(ChatMessage(speech_id="a", text="A"))
    kept.send(ChatMessage(speech_id="b", text="B"))
    entities = list(kept.entities.values())
    body = snapshot("c1", kept.state.version, entities, NOW)
    reading = decode_snapshot(body)
    assert (reading.refused, reading.snapshot.version, reading.snapshot.server_time_ms) == (0, 9, NOW)
    assert [entity.id for entity in reading.snapshot.entities] == ["a", "b"]
    assert set(msgspec.json.decode(body)) == {"convId", "version", "serverTimeMs", "entities"}
    again = [msgspec.json.decode(text)["event"] for text in resend("c1", entities)]
    assert [(event["type"], event["data"]["version"]) for event in again] == [
        ("timeline.upsert", 8),
        ("timeline.upsert", 9),
    ]
    assert all("seq" not in event for event in again)


@pytest.mark.states("sem-chat/text/end-on-reconnect")
def test_the_end_of_a_stream_without_a_message_is_kept_to_be_told_again() -> None:
    kept = Kept()
    for event_type, event_id in [
        ("llm.thinking.start", "t"),
        ("llm.start", "bare"),
        ("llm.start", "runs"),
        ("llm.start", "again"),
        ("llm.thinking.final", "t"),
        ("llm.final", "bare"),
        ("llm.final", "again"),
        ("llm.delta", "again"),
        ("llm.final", "never started"),
    ]:
        kept.send(ChatPassed(payload=frame(event_type, event_id)))
    kept.send(ChatStreamStart(speech_id="r"))
    kept.send(ChatStreamEnd(speech_id="r", text="Hey", complete=True))

    def told_again() -> list[tuple[str, str]]:
        entities = list(kept.entities.values())
        events = [msgspec.json.decode(text)["event"] for text in resend("c1", entities, kept.state.finished)]
        assert all("seq" not in event for event in events)
        return [(event["type"], event["id"]) for event in events]

    assert told_again() == [("timeline.upsert", "r"), ("llm.thinking.final", "t"), ("llm.final", "bare")]
    kept.send(ChatClosed(end_reason=EndReason.ERROR))
    assert told_again()[3:] == [("llm.final", "runs"), ("llm.final", "again")]
    for name in range(MAX_ENDED_STREAMS):
        for event_type in ("llm.start", "llm.final"):
            kept.send(ChatPassed(payload=frame(event_type, f"s{name}")))
    assert len(told_again()) == 1 + MAX_ENDED_STREAMS


def test_ids_and_prompts_that_are_none_are_told_so() -> None:
    assert conversation_id_problem("conv-1") is None
    assert conversation_id_problem("") == "must not be empty"
    assert conversation_id_problem("a\x7f") == "must not contain control characters"
    assert prompt_problem("x") is None
    assert prompt_problem("\t") == "must not be empty"


def test_a_refused_output_is_counted_and_changes_nothing_else() -> None:
    kept = Kept()
    assert kept.send(ChatPassed(payload="{")) == []
    assert kept.state == msgspec.structs.replace(IN_SESSION, outputs=1)
    assert Composed(at_ms=NOW).refused is None
