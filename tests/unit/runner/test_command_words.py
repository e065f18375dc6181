"""Commands that a recognizer cannot know: who is told of them, in which words, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from tests.unit.runner.hosted_call import HostedCall
from voicethere.core.ports import HintCheck, SpeechProviderError, Transcript, UnknownWords
from voicethere.roles.runner.command_words import MAX_NAMED, CommandWords, command_remarks
from voicethere.testing.speech import ScriptedRecognizer
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

FROBNICATE = "1 of the agent's 2 commands are never recognized here: 'frobnicate it' (unknown: frobnicate)"


class DictationOnly:
    """A recognizer that takes what is said as it is, and so has nothing to tell of hints."""

    async def recognize(self, pcm: bytes, *, hints: Sequence[str]) -> Transcript:
        return Transcript(text="")

    async def aclose(self) -> None: ...


class Answering(DictationOnly):
    """Tells what it was made with; `asked` counts."""

    def __init__(self, answer: Callable[[Sequence[str]], Sequence[UnknownWords]]) -> None:
        self.asked = 0
        self._answer = answer

    async def unknown_words(self, hints: Sequence[str]) -> Sequence[UnknownWords]:
        self.asked += 1
        return self._answer(hints)


def hopeless(hints: Sequence[str]) -> Sequence[UnknownWords]:
    return [UnknownWords(hint=hint, words=(hint,), recognizable=False, reason="it is odd") for hint in hints]


def guessed(hints: Sequence[str]) -> Sequence[UnknownWords]:
    return [UnknownWords(hint=hint, words=(hint,), recognizable=True, reason="guessed") for hint in hints]


def broken(hints: Sequence[str]) -> Sequence[UnknownWords]:
    raise SpeechProviderError("it is gone")


async def test_it_is_said_once_of_each_build_and_set_of_commands() -> None:
    recognizer = ScriptedRecognizer(unknown=["frobnicate"])
    words = CommandWords(recognizer)
    commands = ["hello", "frobnicate it"]
    assert await words.remark("b1", commands) == FROBNICATE
    assert await words.remark("b1", commands) is None
    assert await words.remark("b2", commands) == FROBNICATE
    assert await words.remark("b1", ["frobnicate"]) is not None
    assert len(recognizer.looked_up) == 3


async def test_there_is_nothing_to_say_of_commands_that_are_known_or_guessed() -> None:
    assert await CommandWords(ScriptedRecognizer()).remark("b", ["hello"]) is None
    assert await CommandWords(Answering(guessed)).remark("b", ["hello"]) is None
    assert await CommandWords(Answering(hopeless)).remark("b", []) is None


async def test_a_recognizer_that_cannot_tell_is_not_asked() -> None:
    assert not isinstance(DictationOnly(), HintCheck)
    assert await CommandWords(DictationOnly()).remark("b", ["hello"]) is None
    assert await command_remarks(DictationOnly(), ["hello"]) == []
    assert await command_remarks(None, ["hello"]) == []


async def test_a_recognizer_that_fails_is_said_and_asked_again() -> None:
    recognizer = Answering(broken)
    words = CommandWords(recognizer)
    line = "whether the agent's commands can be recognized could not be looked up: it is gone"
    assert [await words.remark("b", ["hello"]) for _ in range(2)] == [line, line]
    assert recognizer.asked == 2
    assert await command_remarks(recognizer, ["hello"]) == [line]


async def test_a_look_that_a_session_gave_up_is_taken_by_the_next() -> None:
    recognizer = ScriptedRecognizer(unknown=["frobnicate"])
    words = CommandWords(recognizer)
    looking = asyncio.Event()

    async def never(hints: Sequence[str]) -> Sequence[UnknownWords]:
        looking.set()
        await asyncio.Event().wait()
        raise AssertionError

    answers, recognizer.unknown_words = recognizer.unknown_words, never  # type: ignore[method-assign]
    first = asyncio.create_task(words.remark("b", ["hello", "frobnicate it"]))
    await looking.wait()
    recognizer.unknown_words = answers  # type: ignore[method-assign]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await words.remark("b", ["hello", "frobnicate it"]) == FROBNICATE


async def test_what_is_said_is_bounded_and_cannot_be_taken_for_other_lines() -> None:
    commands = [f"odd\n\x1b[31m{number}" for number in range(1000)]
    line = await CommandWords(Answering(hopeless)).remark("b", commands)
    assert line is not None
    assert line.startswith("1000 of the agent's 1000 commands")
    assert line.endswith(f"; and {1000 - MAX_NAMED} more")
    assert line.isprintable()
    remarks = await command_remarks(Answering(hopeless), commands)
    assert remarks[-1] == f"and {1000 - MAX_NAMED} commands like these"
    assert len(remarks) == MAX_NAMED + 1


async def test_remarks_name_each_command_and_the_hopeless_ones_first() -> None:
    def both(hints: Sequence[str]) -> Sequence[UnknownWords]:
        return [*guessed(hints[:1]), *hopeless(hints[1:])]

    assert await command_remarks(Answering(both), ["brand", "odd"]) == [
        "the command 'odd' is never recognized: it is odd",
        "the command 'brand' may be misheard: guessed",
    ]


@pytest.mark.parametrize(
    ("mode", "stt_enabled", "lines"),
    [(Mode.VOICE, True, 1), (Mode.VOICE, False, 0), (Mode.DATA, True, 0)],
)
def test_the_agents_log_says_it_where_somebody_listens(mode: Mode, stt_enabled: bool, lines: int) -> None:
    settings = SessionSettings(stt_enabled=stt_enabled)

    @in_virtual_time
    async def host() -> None:
        async with HostedCall(mode, settings=settings, unknown_words=["hello"]) as call:
            assert len(call.recognizer.looked_up) == lines

    with capture_logs() as logs:
        host()
    said = [line for line in logs if "never recognized" in line.get("message", "")]
    assert [(line["event"], line["session_id"], line["level_of_agent"]) for line in said] == [
        ("agent_log", "s", "warn")
    ] * lines


@in_virtual_time
async def test_a_recognizer_that_hangs_keeps_no_session_from_its_end_and_is_given_up_then() -> None:
    happened: list[str] = []

    async def never(hints: Sequence[str]) -> Sequence[UnknownWords]:
        happened.append("asked")
        try:
            await asyncio.Event().wait()
        finally:
            happened.append("given up")
        raise AssertionError

    call = HostedCall()
    call.recognizer.unknown_words = never  # type: ignore[method-assign]
    async with call:
        assert happened == ["asked"]
    assert happened == ["asked", "given up"]
    assert call.errors() == []
