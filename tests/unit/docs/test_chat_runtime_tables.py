"""docs/chat-runtime.md says what the code does: events, codes and stages, families, phases, bounds."""

from __future__ import annotations

import re
from pathlib import Path

from voicethere.chat.event_lines import FAMILIES, MAX_LINE_CHARS
from voicethere.chat.event_log import MAX_ENTRIES, MAX_PAYLOAD_BYTES, LifecyclePhase
from voicethere.core.chat.registry import DEFAULT_HANDLERS
from voicethere.core.chat.streams import MAX_REPORTS, MAX_RUNNING
from voicethere.errors.chat_codes import CHAT_STAGES, UNKNOWN_STAGE

TEXT = (Path(__file__).parents[3] / "docs" / "chat-runtime.md").read_text()


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> list[str]:
    return re.findall(r"`([^`\s]+)`", text)


def test_every_default_handler_is_in_the_table() -> None:
    rows = [line for line in section("Handlers of frames").splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in named(row.split("|")[1])) == sorted(DEFAULT_HANDLERS)


def test_every_code_is_beside_its_stage() -> None:
    stages: dict[str, str] = {}
    for line in section("Codes of session errors").splitlines():
        if line.startswith("| "):
            _, codes, stage, _ = line.split("|")
            stages |= {code: named(stage)[0] for code in named(codes)}
            last = stage
    assert stages == {code.value: stage for code, stage in CHAT_STAGES.items()}
    assert named(last) == [UNKNOWN_STAGE]


def test_the_families_and_phases_are_told() -> None:
    text = section("The event log")
    families = text.split("- Families: ")[1].split(".")[0]
    assert named(families) == list(FAMILIES)
    assert named(text.split("family `lifecycle`: ")[1]) == list(LifecyclePhase)


def test_the_bounds_are_told() -> None:
    words = " ".join(TEXT.split())
    assert f"the newest {MAX_REPORTS:,} messages" in words
    assert f"At most {MAX_RUNNING} streams run" in words
    assert f"the newest {MAX_ENTRIES:,} things" in words
    assert f"at most {MAX_LINE_CHARS} characters" in words
    assert f"at most {MAX_PAYLOAD_BYTES // 1024} KiB" in words
