"""`voicethere chat --json-events` against a server that speaks sem-chat over real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.cli_chat.chat_process import Chat
from voicethere.chat import ChatStore, ConversationManager
from voicethere.cli.chat.json_events import converse
from voicethere.cli.chat.prompts_in import given_prompts
from voicethere.testing.chat_server import ScriptedChatServer

CONV = "conv-1"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedChatServer]:
    """A gateway that answers "You said: …"."""
    async with ScriptedChatServer() as running:
        yield running


async def _converse(
    server: ScriptedChatServer, *prompts: str, wait_seconds: float = 10.0
) -> tuple[bool, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    async with ConversationManager(ChatStore(), server.base_url) as manager:
        done = await converse(
            manager,
            CONV,
            given_prompts(prompts),
            wait_seconds=wait_seconds,
            settle_seconds=0.05,
            write=lines.append,
        )
    return done, lines


def _of(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


async def test_prompts_are_answered_one_after_the_other(server: ScriptedChatServer) -> None:
    done, lines = await _converse(server, "one", "two")
    assert done
    assert lines[0] == {"event": "conversation", "conv_id": CONV}
    assert {"event": "connection", "status": "connected"} in lines
    assert [prompt["prompt"] for prompt in server.prompts] == ["one", "two"]
    replies = [line for line in _of(lines, "message") if line["role"] == "assistant"]
    assert [line["content"] for line in replies if not line["streaming"]] == [
        "You said: one",
        "You said: two",
    ]
    assert {"id": "a1", "content": "You said: ", "streaming": True}.items() <= replies[0].items()
    assert [line["streaming"] for line in _of(lines, "streaming")] == [True, False, True, False]
    first_reply = lines.index(replies[0])
    assert lines.index({"event": "sent", "prompt": "two"}) > first_reply
    assert lines[-1] == {"event": "closed", "ok": True, "problems": []}


async def test_what_was_said_before_is_told_first(server: ScriptedChatServer) -> None:
    server.upsert(CONV, "old", "message", {"role": "assistant", "content": "Welcome back."})
    server.upsert(CONV, "mode", "agent_mode", {"title": "search"})
    done, lines = await _converse(server)
    assert done
    assert [line["content"] for line in _of(lines, "message")] == ["Welcome back."]
    assert [(line["kind"], line["props"]) for line in _of(lines, "entity")] == [
        ("agent_mode", {"title": "search"})
    ]


async def test_a_refused_prompt_fails_and_the_next_is_still_sent(server: ScriptedChatServer) -> None:
    server.refuse("/chat", 429, "Too many messages for now.")
    done, lines = await _converse(server, "one", "two")
    assert not done
    (error,) = _of(lines, "error")
    assert error["error"]["kind"] == "http_error"
    assert error["error"]["status"] == 429
    assert lines[-1]["problems"] == ["not sent: Too many messages for now."]
    assert "You said: two" in [line["content"] for line in _of(lines, "message")]


async def test_a_session_that_fails_ends_the_turn_at_once(server: ScriptedChatServer) -> None:
    def fail(server: ScriptedChatServer, conv_id: str, prompt: str) -> None:
        envelope = {
            "type": "session_error",
            "code": "AGENT_HANDLER_FAILED",
            "message": "Sorry, something went wrong.",
            "session_id": "s-1",
            "recoverable": False,
        }
        server.frame(conv_id, "session.error", "e-1", envelope)

    server.on_prompt = fail
    done, lines = await _converse(server, "hello", wait_seconds=60)
    assert not done
    (error,) = _of(lines, "error")
    assert error["error"]["code"] == "AGENT_HANDLER_FAILED"
    assert lines[-1]["problems"] == ["the session failed: AGENT_HANDLER_FAILED"]


async def test_a_reply_that_does_not_come_is_waited_for_so_long_and_no_longer(
    server: ScriptedChatServer,
) -> None:
    server.on_prompt = lambda server, conv_id, prompt: None
    done, lines = await _converse(server, "hello", wait_seconds=0.3)
    assert not done
    assert lines[-1]["problems"] == ["no whole reply within 0.3 s"]


async def test_an_interrupted_conversation_is_not_told_as_done(server: ScriptedChatServer) -> None:
    server.on_prompt = lambda server, conv_id, prompt: None
    lines: list[dict[str, Any]] = []
    async with ConversationManager(ChatStore(), server.base_url) as manager:
        task = asyncio.create_task(
            converse(manager, CONV, given_prompts(["hello"]), wait_seconds=60, write=lines.append)
        )
        await server.until(lambda: server.prompts)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert lines[-1] == {"event": "closed", "ok": False, "problems": ["interrupted"]}


async def test_a_server_that_is_not_there_fails_with_its_errors(server: ScriptedChatServer) -> None:
    server.on_accept(lambda wire: wire.reset())
    done, lines = await _converse(server, "hello", wait_seconds=0.3)
    assert not done
    assert _of(lines, "error")
    assert _of(lines, "sent") == []
    assert lines[-1]["problems"] == ["not connected within 0.3 s"]


async def test_a_lost_socket_is_told_and_the_reply_still_comes(server: ScriptedChatServer) -> None:
    def cut_off(server: ScriptedChatServer, conv_id: str, prompt: str) -> None:
        for socket in server.live(conv_id):
            socket.reset()
        server.upsert(conv_id, "a1", "message", {"role": "assistant", "content": "Here I am again."})

    server.on_prompt = cut_off
    done, lines = await _converse(server, "hello")
    assert done
    assert any(line["status"] != "connected" for line in _of(lines, "connection"))
    assert "Here I am again." in [line["content"] for line in _of(lines, "message")]


async def test_the_command_reads_lines_and_writes_ascii(server: ScriptedChatServer) -> None:
    arguments = [CONV, "--json-events", "--base-url", server.base_url, "--settle", "0.05"]
    async with Chat(*arguments) as chat:
        output, error, status = await chat.say("first \u202e\x1b[31m\n\n   \nsecond\n")
    assert status == 0, error
    assert output.isascii()
    assert "\x1b" not in output
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["prompt"] for line in _of(lines, "sent")] == ["first \u202e\x1b[31m", "second"]
    assert lines[-1]["ok"] is True
    assert error == ""


async def test_the_command_fails_with_status_1_and_tells_why(server: ScriptedChatServer) -> None:
    server.refuse("/chat", 503, "Not now.")
    arguments = [CONV, "--json-events", "--base-url", server.base_url, "--send", "hello"]
    async with Chat(*arguments) as chat:
        output, _, status = await chat.say("")
    assert status == 1
    assert json.loads(output.splitlines()[-1])["problems"] == ["not sent: Not now."]


async def test_input_that_is_no_text_is_one_line(server: ScriptedChatServer) -> None:
    async with Chat(CONV, "--json-events", "--base-url", server.base_url) as chat:
        output, error, status = await chat.say(b"\xff\xfe\n")
    assert status == 1
    assert "line 1 of standard input is not UTF-8" in error
    assert "Traceback" not in error
    assert json.loads(output.splitlines()[-1])["ok"] is False


async def test_a_reader_that_goes_away_ends_the_command(server: ScriptedChatServer) -> None:
    arguments = [CONV, "--json-events", "--base-url", server.base_url, "--send", "one"]
    async with Chat(*arguments, stdout_closed=True) as chat:
        _, error, status = await chat.say("")
    assert status == 1
    assert "Traceback" not in error


async def test_an_issued_id_is_asked_for_and_a_refusal_is_one_line(server: ScriptedChatServer) -> None:
    async with Chat("--json-events", "--issued", "--base-url", server.base_url) as chat:
        _, error, status = await chat.say("")
    assert status == 1
    assert error == "voicethere: the gateway did not issue a conversation id: no POST /conversations\n"
    server.refuse("/conversations", 200, '{"conv_id": "issued-1", "expires_at": "2027-01-01T00:00:00Z"}')
    async with Chat("--json-events", "--issued", "--base-url", server.base_url) as chat:
        output, _, status = await chat.say("")
    assert status == 0
    assert json.loads(output.splitlines()[0])["conv_id"] == "issued-1"


def test_without_textual_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['textual'] = None; sys.modules['textual.app'] = None\n"
        "sys.stdin.isatty = sys.stdout.isatty = lambda: True\n"
        "from voicethere.cli.main import main\n"
        "main(['chat', 'c', '--base-url', 'http://127.0.0.1:9/c/x'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'voicethere[chat-tui]'" in result.stderr
    assert "Traceback" not in result.stderr
