"""What a chat session has said and nobody has stored: order, windows, parts that become one, bounds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from voicethere.core.chat_outbox import ChatOutbox, Output
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


def message(number: int, text: str = "hello") -> ChatMessage:
    return ChatMessage(speech_id=f"s-{number}", text=text)


def part(delta: str, cumulative: str = "", speech_id: str = "s-1") -> ChatStreamText:
    return ChatStreamText(speech_id=speech_id, delta=delta, cumulative=cumulative or delta)


def numbers(outputs: list[Output]) -> list[int]:
    return [output.number for output in outputs]


def test_outputs_are_numbered_from_1_and_due_once() -> None:
    outbox = ChatOutbox()
    assert outbox.put(message(1))
    assert outbox.put(message(2))
    assert numbers(outbox.due()) == [1, 2]
    assert outbox.due() == []
    assert numbers(outbox.again()) == [1, 2]
    assert (outbox.taken(1), outbox.taken(1), outbox.taken(99)) == (True, False, True)
    assert (outbox.waiting, outbox.again(), outbox.last) == (0, [], 2)


def test_what_was_not_sent_cannot_have_been_stored() -> None:
    outbox = ChatOutbox()
    outbox.put(message(1))
    assert not outbox.taken(1)
    assert numbers(outbox.due()) == [1]


def test_no_more_than_a_window_is_on_its_way() -> None:
    outbox = ChatOutbox(window_outputs=2, window_size=10)
    for number in range(4):
        outbox.put(message(number, "four"))
    assert numbers(outbox.due()) == [1, 2]
    outbox.taken(1)
    assert numbers(outbox.due()) == [3]
    outbox.put(message(5, "more than a whole window"))
    outbox.taken(3)
    assert numbers(outbox.due()) == [4]
    outbox.taken(4)
    assert numbers(outbox.due()) == [5]  # alone, it goes however long it is


def test_a_part_waits_for_the_one_before_it_and_grows_meanwhile() -> None:
    outbox = ChatOutbox()
    outbox.put(ChatStreamStart(speech_id="s-1"))
    outbox.put(part("a", "a"))
    assert numbers(outbox.due()) == [1, 2]
    outbox.put(part("b", "ab"))
    assert outbox.due() == []
    outbox.put(part("c", "abc"))
    assert outbox.due() == []
    outbox.taken(2)
    assert outbox.due() == [Output(3, part("bc", "abc"))]


def test_a_part_waits_no_longer_once_something_follows_it() -> None:
    outbox = ChatOutbox()
    outbox.put(part("a", "a"))
    outbox.due()
    outbox.put(part("b", "ab"))
    outbox.put(ChatStreamEnd(speech_id="s-1", text="ab", complete=True))
    assert numbers(outbox.due()) == [2, 3]


def test_the_newest_part_waits_while_parts_are_gathered() -> None:
    outbox = ChatOutbox()
    outbox.put(ChatStreamStart(speech_id="s-1"))
    outbox.put(part("a", "a"))
    assert numbers(outbox.due(gathering=True)) == [1]
    assert outbox.unsent == 1
    outbox.put(part("b", "ab"))
    assert outbox.due() == [Output(2, part("ab", "ab"))]
    outbox.taken(2)
    outbox.put(part("c", "abc"))
    outbox.put(message(1))
    assert numbers(outbox.due(gathering=True)) == [3, 4]  # what follows a part waits for nobody
    assert outbox.unsent == 0


def test_parts_of_two_streams_stay_apart() -> None:
    outbox = ChatOutbox()
    outbox.put(part("a", "a"))
    outbox.put(part("x", "x", "s-2"))
    outbox.put(part("b", "ab"))
    assert [output.body for output in outbox.due()][:2] == [part("a", "a"), part("x", "x", "s-2")]


def test_a_full_outbox_keeps_room_for_what_is_reserved() -> None:
    outbox = ChatOutbox(max_outputs=2)
    assert outbox.put(message(1))
    assert outbox.put(message(2))
    assert not outbox.put(message(3))
    assert outbox.put(ChatClosed(end_reason=EndReason.ERROR), reserved=True)
    assert numbers(outbox.due()) == [1, 2, 3]


def test_size_is_bounded_too_and_freed_by_what_is_stored() -> None:
    outbox = ChatOutbox(max_size=10)
    assert outbox.put(part("abc", "abc"))
    assert outbox.put(part("d", "abcd"))  # one part by now, of 8 characters
    assert not outbox.put(part("e", "abcde" * 2))
    outbox.due()
    outbox.taken(1)
    assert outbox.put(message(1, "0123456789"))
    assert not outbox.put(message(2, "0"))


def test_only_the_agents_words_are_nowhere_else() -> None:
    outbox = ChatOutbox()
    envelope = SessionErrorEnvelope(
        code="AGENT_HANDLER_FAILED", message="m", session_id="s", project_id="p", recoverable=False
    )
    outbox.put(ChatFailure(error_id="e", envelope=envelope))
    outbox.put(ChatClosed(end_reason=EndReason.ERROR))
    assert outbox.words_waiting == 0
    outbox.put(ChatPassed(payload="{}"))
    assert (outbox.words_waiting, outbox.waiting) == (1, 3)


class Gateways:
    """All gateways together: they store only the output behind the last one that is stored."""

    def __init__(self) -> None:
        self.stored: list[ChatBody] = []

    def hear(self, output: Output) -> int:
        if output.number == len(self.stored) + 1:
            self.stored.append(output.body)
        return len(self.stored)


def joined(bodies: list[ChatBody]) -> list[Any]:
    """As a reader has it: the parts of a stream that follow each other are one text."""
    read: list[Any] = []
    for body in bodies:
        if isinstance(body, ChatStreamText) and read and isinstance(read[-1], ChatStreamText):
            body = part(read[-1].delta + body.delta, body.cumulative)
            read.pop()
        read.append(body)
    return read


@given(
    said=st.lists(st.sampled_from(["message", "part", "part", "end"]), max_size=40),
    chance=st.data(),
    window=st.integers(1, 5),
)
def test_whatever_is_lost_repeated_or_reordered_each_output_is_stored_once_in_order(
    said: list[str], chance: st.DataObject, window: int
) -> None:
    outbox, gateways = ChatOutbox(window_outputs=window), Gateways()
    bodies: list[ChatBody] = []
    wire: list[Output] = []
    answers: list[int] = []
    text = ""
    for kind in said:
        if kind == "part":
            text += "x"
            bodies.append(part("x", text))
        elif kind == "end":
            bodies.append(ChatStreamEnd(speech_id="s-1", text=text, complete=True))
            text = ""
        else:
            bodies.append(message(len(bodies)))
        assert outbox.put(bodies[-1])
        wire += outbox.due()
        for _ in range(chance.draw(st.integers(0, 3))):
            match chance.draw(st.sampled_from(["hear", "lose", "repeat", "again", "answer"])):
                case "hear" if wire:
                    heard = wire.pop(chance.draw(st.integers(0, len(wire) - 1)))
                    answers.append(gateways.hear(heard))
                case "lose" if wire:
                    wire.pop(chance.draw(st.integers(0, len(wire) - 1)))
                case "repeat" if wire:
                    wire.append(wire[0])
                case "again":
                    wire += outbox.again()
                case "answer" if answers:
                    outbox.taken(answers.pop(chance.draw(st.integers(0, len(answers) - 1))))
                    wire += outbox.due()
        assert len(gateways.stored) <= outbox.last
    while outbox.waiting:
        for output in outbox.again() + outbox.due():
            gateways.hear(output)
        assert outbox.taken(len(gateways.stored))
    assert joined(gateways.stored) == joined(bodies)
    assert len(gateways.stored) == outbox.last
