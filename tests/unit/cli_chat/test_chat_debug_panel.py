"""The debug panel: families, pause, detail, export; and the history of errors beside it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from textual.widgets import OptionList

from tests.unit.cli_chat.terminal_of import CONV, Terminal, terminal
from voicethere.chat import actions
from voicethere.chat.event_lines import FAMILIES
from voicethere.cli.chat.debug_screen import DebugScreen
from voicethere.cli.chat.history_screen import HistoryScreen


async def _opened(shown: Terminal) -> OptionList:
    """The panel on a log of three families."""
    shown.log.record(CONV, "lifecycle", "ws.open", "socket open")
    shown.log.record(CONV, "llm", "llm.delta", "a1 +Hello", {"delta": "Hel[b]lo\x1b[2J"})
    shown.log.record(CONV, "timeline", "timeline.upsert", "message a1", {"entity": {"id": "a1"}})
    shown.log.record("another", "llm", "llm.delta", "of another conversation")
    await shown.press("ctrl+g")
    assert isinstance(shown.app.screen, DebugScreen)
    return shown.app.screen.query_one(OptionList)


async def test_entries_come_by_themselves_and_the_newest_is_followed(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        entries = await _opened(shown)
        assert entries.option_count == 3
        assert "another conversation" not in shown.text
        assert "3/3 running" in shown.lines[0]
        shown.log.record(CONV, "llm", "llm.final", "a1 whole")
        await shown.until(lambda: entries.option_count == 4)
        assert entries.highlighted == 3
        await shown.press("up", "up")
        shown.log.record(CONV, "llm", "llm.start", "a2")
        await shown.until(lambda: entries.option_count == 5)
        assert entries.highlighted == 1  # the reader is elsewhere


async def test_families_are_hidden_and_shown_by_their_digits(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        entries = await _opened(shown)
        assert "1 ■ lifecycle 2 ■ llm 3 ■ timeline" in shown.text.replace("\N{NO-BREAK SPACE}", " ")
        await shown.press("2")
        assert entries.option_count == 2
        assert "2 □ llm" in shown.text.replace("\N{NO-BREAK SPACE}", " ")
        assert "llm.delta" not in shown.text
        shown.log.record(CONV, "llm", "llm.final", "hidden, too")
        await shown.until(lambda: "2/4" in shown.lines[0])
        await shown.press("9")  # no such family
        await shown.press("a")
        assert entries.option_count == 4


async def test_a_paused_list_stands_still_and_catches_up(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        entries = await _opened(shown)
        await shown.press("p")
        for number in range(7):
            shown.log.record(CONV, "llm", "llm.delta", f"meanwhile {number}")
        await shown.until(lambda: "PAUSED, 7 more" in shown.lines[0])
        assert entries.option_count == 3
        await shown.press("p")
        assert entries.option_count == 10
        assert "meanwhile 6" in shown.text


async def test_the_list_is_bounded_as_the_log_is(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        entries = await _opened(shown)
        for number in range(1_100):
            shown.log.record(CONV, "llm", "llm.delta", f"frame {number}")
        await shown.until(lambda: "1,000/1,000" in shown.lines[0])
        assert entries.option_count == 1_000
        assert "frame 1099" in shown.text


async def test_a_detail_shows_the_payload_escaped(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await _opened(shown)
        await shown.press("up", "enter")
        assert r'"delta": "Hel[b]lo\u001b[2J"' in shown.text
        assert "llm, llm.delta" in shown.text
        await shown.press("escape")
        assert isinstance(shown.app.screen, DebugScreen)
        await shown.press("escape")
        assert "● connected" in shown.lines[0]


@pytest.mark.parametrize("size", [(80, 24), (40, 20)])
async def test_the_panel_fits_the_screen(tmp_path: Path, size: tuple[int, int]) -> None:
    async with terminal(tmp_path, size=size) as shown:
        for family in FAMILIES:
            shown.log.record(CONV, family, f"{family}.type", "a long summary " * 20)
        entries = await _opened(shown)
        width, height = size
        assert entries.max_scroll_x == 0
        assert entries.region.height >= height - 6
        for widget in shown.app.screen.query("*").results():
            assert widget.region.right <= width
            assert widget.region.bottom <= height
        assert "9 ■ other" in shown.text.replace("\N{NO-BREAK SPACE}", " ")


async def test_exports_are_new_private_files_of_the_families_that_are_shown(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await _opened(shown)
        await shown.press("t", "t", "2", "y")
        texts, (document,) = sorted(tmp_path.glob("*.txt")), tmp_path.glob("*.yaml")
        assert len(texts) == 2
        assert "a1 +Hello" in texts[0].read_text()
        assert stat.S_IMODE(document.stat().st_mode) == 0o600
        exported = yaml.safe_load(document.read_text())
        assert exported["conversation"] == CONV
        assert [entry["family"] for entry in exported["entries"]] == ["lifecycle", "timeline"]
        assert any(str(document.name) in words for words in shown.said)


async def test_an_export_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    async with terminal(tmp_path / "missing") as shown:
        await _opened(shown)
        await shown.press("t")
        assert any("cannot write to" in words for words in shown.said)


async def test_forgetting_empties_the_list(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        entries = await _opened(shown)
        await shown.press("p", "x")
        assert entries.option_count == 0
        assert shown.log.entries(CONV) == ()
        assert len(shown.log.entries("another")) == 1


@pytest.mark.states("seed-2/plan/debug-panel")
async def test_the_history_is_newest_first_and_each_error_has_a_page(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.press("ctrl+t")
        assert "No error so far." in shown.text
        await shown.fail(kind="ws_error", stage="stream", message="first")
        await shown.fail(
            kind="runtime_error",
            stage="stream",
            code="AGENT_HANDLER_FAILED",
            message="second",
            recoverable=False,
            details={"sessionId": "s-1"},
        )
        assert isinstance(shown.app.screen, HistoryScreen)
        assert shown.text.index("second") < shown.text.index(": first")
        await shown.press("home", "enter")
        assert "The agent failed (AGENT_HANDLER_FAILED)" in shown.lines[0]
        assert "A handler of the agent raised" in shown.text
        await shown.press("end", "pagedown")
        assert '"sessionId": "s-1"' in shown.text
        await shown.press("escape")
        await shown.dispatch(actions.clear_error(CONV))
        assert "second" in shown.text  # the history stays


async def test_errors_with_one_id_do_not_bring_the_history_down(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        for message in ("first", "second"):
            await shown.fail(kind="ws_error", stage="stream", message=message, id="same")
        await shown.press("ctrl+t")
        assert shown.app.screen.query_one(OptionList).option_count >= 1
