"""The example agents do what they say, in real children."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicethere.cli.demo.phrases import CRASH_PHRASE, PHRASES
from voicethere.wire import ipc

ROOT = Path(__file__).parents[3]
ECHO = ROOT / "examples" / "echo_agent.py"
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
