"""docs/wire.md says what the code does: the list of HTTP error codes, the reserved types, the limits."""

from __future__ import annotations

import re
from pathlib import Path

from voicethere.adapters.http.app import JSON_BODY_LIMIT
from voicethere.core.bundle import BundleLimits
from voicethere.core.ports import OutputLine
from voicethere.core.provisioning import ProvisioningRules
from voicethere.core.session.early import MAX_EARLY_INPUTS
from voicethere.errors import Bounds
from voicethere.roles.control.environment import MAX_ENTRIES, MAX_VALUE_CHARS
from voicethere.roles.runner.agent_journal import Journal
from voicethere.roles.runner.agent_rate import MessageGate
from voicethere.roles.runner.client_messages import MessageRefused
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.sessions.api import MAX_IDEMPOTENCY_KEY_CHARS
from voicethere.roles.sessions.gateway import MAX_PEER_ID_CHARS
from voicethere.roles.sessions.settings import SessionServiceSettings, SignalingLimits
from voicethere.roles.sessions.tokens import JOIN_TOKEN_SECONDS
from voicethere.testing.clock import ManualClock
from voicethere.wire import ipc
from voicethere.wire.control_channel import runner_message_type
from voicethere.wire.http import HttpErrorCode

TEXT = (Path(__file__).parents[3] / "docs" / "wire.md").read_text()
WORDS = " ".join(TEXT.split())


def section(heading: str) -> str:
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def limits() -> dict[str, str]:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section("Limits"), re.MULTILINE)
    return {what.strip(): most.strip() for what, most in rows}


def test_the_list_of_error_codes_is_closed() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", section("HTTP errors"), re.MULTILINE)
    assert [code for code, _ in rows] == [code.value for code in HttpErrorCode]
    assert [status for _, status in rows] == sorted(status for _, status in rows)


def test_reserved_types_are_those_that_an_agent_cannot_send() -> None:
    words = re.search(r"whose `type` is (.*?) is dropped", WORDS)
    assert words is not None
    named = re.findall(r"`(\w+)`", words[1])
    assert len(named) == 6
    for name in named:
        assert runner_message_type(f'{{"type": "{name}"}}') == name
    assert runner_message_type('{"type": "anything"}') is None


def test_message_refused_is_as_described() -> None:
    assert f'"type": "{MessageRefused(reason="").type}"' in TEXT
    assert set(MessageRefused.__struct_fields__) == {"type", "reason", "refused"}


def test_limits_are_the_codes() -> None:
    bounds, runner = Bounds(), RunnerSettings(runner_id="r")
    signaling, bundle = SignalingLimits(), BundleLimits()
    mib = 1024 * 1024
    assert limits() == {
        "what": "most",
        "---": "---",
        "JSON message on voice-control, either way": f"{runner.max_json_message_bytes:,} bytes",
        "binary message of a client": f"{runner.max_binary_message_bytes:,} bytes",
        "`customer_context`": f"{bounds.context_bytes:,} bytes, {bounds.context_depth} levels",
        "an error's `message`": f"{bounds.message_chars:,} characters",
        "an error's `stack`": f"{bounds.stack_bytes:,} bytes, cut in the middle",
        "an error's `details`": f"{bounds.details_bytes:,} bytes, {bounds.details_depth} levels",
        "an envelope as a whole": f"{bounds.envelope_bytes:,} bytes; the stack gives way first",
        "text of one `speak` of an agent": f"{ipc.MAX_SPEAK_CHARS:,} characters",
        "messages of an agent to its clients": (
            "1,000 at once, 500 a second; 16 MiB at once, 4 MiB a second"  # measured below
        ),
        "an agent's log": f"500 lines at once, 100 a second; {ipc.MAX_LOG_MESSAGE_CHARS:,} characters a line",
        "an agent's `commands`": f"{ipc.MAX_COMMANDS:,} phrases of {ipc.MAX_COMMAND_CHARS} characters",
        "signaling message": f"{signaling.message_bytes:,} bytes",
        "signaling messages": (
            f"{signaling.burst_messages} at once, {signaling.messages_per_second:g} a second"
        ),
        "signaling sockets of a session": f"{signaling.sockets_per_room}",
        "JSON body of an HTTP request": f"{JSON_BODY_LIMIT:,} bytes",
        "bundle": (
            f"{bundle.packed_bytes // mib} MiB packed, {bundle.unpacked_bytes // mib} MiB unpacked, "
            f"{bundle.files:,} files"
        ),
        "variables and secrets of a project": f"{MAX_ENTRIES} of {MAX_VALUE_CHARS:,} characters",
    }
    assert runner.max_json_message_bytes == ipc.MAX_CLIENT_MESSAGE_BYTES


def test_what_an_agent_may_send_and_log_is_as_the_page_says() -> None:
    small, large = MessageGate(0.0), MessageGate(0.0)
    assert sum(small.allows(1, now=0.0) for _ in range(2000)) == 1000
    assert sum(small.allows(1, now=1.0) for _ in range(2000)) == 500
    mib = 1024 * 1024
    assert sum(large.allows(mib, now=0.0) for _ in range(40)) == 16
    assert sum(large.allows(mib, now=1.0) for _ in range(40)) == 4
    clock, written = ManualClock(), []
    journal = Journal(write=written.append, clock=clock, redact=str)
    for _ in range(2000):
        journal.printed(OutputLine("stdout", "line"))
    assert len(written) == 500


def test_times_and_counts_in_the_prose() -> None:
    settings, rules, runner = SessionServiceSettings(), ProvisioningRules(), RunnerSettings(runner_id="r")
    for words in (
        f"for at most {settings.sync_start_seconds:g} s",
        f"1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable characters",
        f"may be held for {settings.poll_hold_seconds:g} s",
        f"a job waits {rules.runner_grace_seconds:g} s",
        f"A runner has {rules.accept_seconds:g} s to accept",
        f"good for {JOIN_TOKEN_SECONDS / 60:g} minutes",
        f"1 to {MAX_PEER_ID_CHARS} printable characters",
        f"at most {MAX_EARLY_INPUTS} messages",
        f"{runner.tell_seconds:g} s for a client that never came",
        f"{runner.rejoin_seconds:g} s for one that was lost",
    ):
        assert words in WORDS, words
    assert runner.token_refresh_share == 0.5
