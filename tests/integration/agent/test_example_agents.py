"""The example agents do what they say, in real children."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicethere.cli.demo.phrases import CRASH_PHRASE, PHRASES
from voicethere.roles.runner.agent_events import AgentError, LogLine
from voicethere.wire import ipc

ROOT = Path(__file__).parents[3]
ECHO = ROOT / "examples" / "echo_agent.py"
BARISTA = ROOT / "examples" / "barista_agent.py"
STORYTELLER = ROOT / "examples" / "storyteller_agent.py"
DEMO = ROOT / "src" / "voicethere" / "cli" / "demo" / "demo_agent.py"


@pytest.mark.parametrize("source", [ECHO, DEMO], ids=lambda path: path.stem)
async def test_an_example_answers_speech_and_chat_and_crashes_when_asked(start_agent, source):
    agent = await start_agent(source.read_text())
    await agent.start_session("s1", customer_context={"user": "ada"})
    await agent.start_session("s2")
    agent.hear("what time is it", "s1")
    agent.data('{"type": "chat", "text": "hello"}', "s2")
    agent.data('{"type": "volume"}', "s2")
    await agent.said("You said: what time is it")
    await agent.said("You said: hello")
    agent.hear("please crash now", "s1")
    spoken = await agent.failure()
    agent.data('{"type": "chat", "text": "please crash now"}', "s2")
    written = await agent.failure(2)
    assert (spoken.session_id, spoken.hook) == ("s1", "on_user_speech_final")
    assert (written.session_id, written.hook) == ("s2", "on_data_channel_message")
    assert 'File "agent.py", line' in spoken.stack
    assert any("error" in line for line in spoken.last_log_lines)


async def test_the_demo_agent_knows_twenty_phrases_and_the_one_that_crashes(start_agent):
    agent = await start_agent(DEMO.read_text())
    commands = agent.of(ipc.AgentLoaded)[0].commands
    assert set(commands) == {*PHRASES, CRASH_PHRASE}
    assert len(set(PHRASES)) == 20
    assert "please crash now" in commands
    assert all(2 <= len(phrase.split()) <= 5 for phrase in commands)
    await agent.start_session()
    agent.hear("please crash now")
    assert "Authorization: Bearer vth_demo_" in (await agent.failure()).message


async def test_the_barista_is_brief_with_who_interrupts_it(start_agent):
    agent = await start_agent(BARISTA.read_text())
    await agent.start_session(customer_context={"name": "Ada"})
    await agent.said("Hello Ada, what may it be?")
    agent.hear("what do you have")
    menu = await agent.event(ipc.Speak, lambda speak: "crown of foam" in speak.text)
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=menu.speech_id, interrupted=True))
    agent.speech_event("barge_in")
    agent.hear("one latte please")
    await agent.said("latte")
    assert agent.sent()[-2:] == [
        {"type": "menu", "items": {"espresso": 2.5, "cappuccino": 3.5, "latte": 4.0}},
        {"type": "order", "items": ["latte"]},
    ]
    agent.hear("what do you have")
    await agent.said("Espresso, cappuccino, latte.")


async def test_the_barista_serves_who_listens(start_agent):
    agent = await start_agent(BARISTA.read_text())
    await agent.start_session()
    await agent.said("Hello, what may it be?")
    for _ in range(2):
        agent.speech_event("user_stt_not_found")
    await agent.said("Pardon?")
    await agent.said("You may say: Espresso, cappuccino, latte.")
    agent.speech_event("user_speech_partial", "one")
    agent.hear("one espresso please")
    await agent.said("One espresso, with pleasure. Anything else?")
    agent.hear("thank you")
    goodbye = await agent.said("That is 2.50 dollars. See you soon!")
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=goodbye.speech_id, interrupted=False))
    assert (await agent.event(ipc.DisconnectClient)).reason == "served"
    assert {"type": "caption", "text": "one"} in agent.sent()
    agent.child.send(ipc.IdleTimeout(session_id="s1", idle_timeout_seconds=30, grace_seconds=30))
    asked = await agent.said("Are you still there? I will close now. Call again!")
    assert not agent.of(ipc.IdleTimeoutDone)
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=asked.speech_id, interrupted=False))
    await agent.event(ipc.IdleTimeoutDone)
    await agent.end_session()
    assert agent.of(AgentError) == []


async def test_the_storyteller_writes_word_by_word_stops_when_told_to_and_breaks_in_a_riddle(start_agent):
    # However late the interruption comes on a loaded machine: it comes in the middle of this story.
    end, much_more = "That is the end of the story.", 1500
    source = STORYTELLER.read_text()
    assert source.count(end) == 1
    agent = await start_agent(source.replace(end, "and then" + " and then" * much_more))
    await agent.start_session()
    await agent.said("Hello. Ask me for a story!")
    agent.data('{"type": "chat", "text": "How are you?"}')
    assert (await agent.event(ipc.SpeakEnd)).complete
    pieces = [message.text for message in agent.of(ipc.SpeakText)]
    assert len(pieces) > 5
    assert "".join(pieces) == "I am well, thank you. I have read a good book. And you?"
    agent.hear("tell me a story")
    story = await agent.event(ipc.SpeakText, lambda message: "telephone" in message.text)
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=story.speech_id, interrupted=True))
    answer = await agent.event(LogLine, lambda line: line.message == "stopped writing")
    line = await agent.event(LogLine, lambda line: line.message == "stopped writing", nth=2)
    assert (answer.fields or {})["words"] == 13
    assert (line.fields or {})["words"] < much_more
    agent.hear("tell me a riddle")
    failure = await agent.failure()
    assert (failure.hook, failure.message) == (
        "speak",
        "ConnectionError: the model hung up in the middle of a sentence",
    )
    assert [end.complete for end in agent.of(ipc.SpeakEnd)] == [True, False, False]
