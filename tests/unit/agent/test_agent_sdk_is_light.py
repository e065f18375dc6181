"""What importing the SDK drags in, and what it exports."""

from __future__ import annotations

import json
import subprocess
import sys

import voicethere.agent


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def third_party(modules: set[str], nothing: set[str]) -> set[str]:
    tops = {name.partition(".")[0] for name in modules - nothing}
    return {top for top in tops - set(sys.stdlib_module_names) if not top.startswith("_")}


def test_the_sdk_imports_msgspec_and_nothing_else_of_others():
    nothing = modules_after("pass")
    for module in ("voicethere.agent", "voicethere.agent.child"):
        assert third_party(modules_after(f"import {module}"), nothing) <= {
            "voicethere",
            "msgspec",
            "typing_extensions",
        }


def test_the_sdk_starts_no_event_loop_and_opens_no_socket():
    heavy = {"asyncio", "socket", "ssl", "http", "urllib.request", "logging", "sqlite3", "concurrent.futures"}
    loaded = modules_after("import voicethere.agent")
    assert loaded & heavy == set()
    ours = {name for name in loaded if name.startswith("voicethere.")}
    assert {name.split(".")[1] for name in ours} == {"agent", "wire", "errors"}


def test_the_public_names():
    assert set(voicethere.agent.__all__) == {
        "Agent",
        "AgentDefinitionError",
        "AgentStartContext",
        "DataChannelBinaryContext",
        "DataChannelMessageContext",
        "ErrorContext",
        "IdleTimeoutContext",
        "SessionContext",
        "Speech",
        "SpeechEvent",
        "SpeechEventContext",
        "SpeechOutcome",
        "UserSpeechFinalContext",
        "agent_log",
        "broadcast_to_clients",
        "define_agent",
        "disconnect_client",
        "parse_chat_text",
        "send_binary_to_client",
        "send_to_client",
        "speak",
    }
    assert all(hasattr(voicethere.agent, name) for name in voicethere.agent.__all__)
