"""The conversation's screen: what it shows of a state, in any size, and what its keys do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.widgets import TextArea

from tests.unit.cli_chat.terminal_of import CONV, Terminal, terminal
from voicethere.chat import ChatHttpError, TimelineEntity, actions
from voicethere.cli.chat.error_bar import ErrorBar
from voicethere.cli.chat.transcript import MOST_SHOWN, EntityView, Transcript
from voicethere.core.chat.errors import ChatErrorStage
from voicethere.core.chat.state import TurnStats

SIZES = [(80, 24), (40, 20), (200, 60), (30, 12)]
HOSTILE = "[bold]markup[/] \x1b[31mred\x1b[0m \x9b2J \u202eright\u2069 \x00 \x07 [@click=app.quit]x[/]"


async def _busy(shown: Terminal) -> None:
    """A state in which everything there is to show is shown."""
    await shown.say("u1", "user", "Where is my order? " * 6)
    await shown.say("a1", "assistant", "It is on its way. " * 12, streaming=True)
    await shown.dispatch(actions.set_model_name(CONV, "a-model-with-a-rather-long-name"))
    await shown.dispatch(actions.set_is_streaming(CONV, True))
    await shown.dispatch(actions.add_conversation_usage(CONV, input_tokens=12_345, output_tokens=678))
    await shown.dispatch(
        actions.set_turn_stats(
            CONV, TurnStats(input_tokens=120, output_tokens=45, duration_ms=1_530, tokens_per_second=29.4)
        )
    )
    await shown.dispatch(
        actions.upsert_suggestions(
            CONV,
            entity_id="s",
            source="assistant",
            suggestions=["Cancel it", "Where exactly is it?", "Thanks"],
        )
    )
    await shown.fail(
        kind="runtime_error",
        stage="stream",
        code="AGENT_HANDLER_FAILED",
        message="Sorry, something went wrong. " * 20,
        recoverable=False,
    )


def _assert_fits(shown: Terminal) -> None:
    width, height = shown.app.size
    for widget in shown.app.screen.query("*").results():
        if widget.display and not isinstance(widget.parent, Transcript) and widget.region.area:
            assert widget.region.right <= width, widget
            assert widget.region.bottom <= height, widget
    assert len(shown.lines) == height


@pytest.mark.parametrize("size", SIZES)
async def test_everything_at_once_fits_the_screen(tmp_path: Path, size: tuple[int, int]) -> None:
    async with terminal(tmp_path, size=size) as shown:
        await _busy(shown)
        _assert_fits(shown)
        lines = shown.lines
        assert "● connected" in lines[0]
        assert "F1 keys" in lines[-1]
        assert "^Q quit" in lines[-1]
        prompt = shown.app.screen.query_one("#prompt")
        assert prompt.region.height >= 1
        assert prompt.region.bottom == size[1] - 1
        assert "✗ The agent failed" in shown.text
        assert shown.app.screen.query_one(Transcript).region.height >= 1


async def test_a_terminal_that_shrinks_and_grows_is_followed(tmp_path: Path) -> None:
    async with terminal(tmp_path, size=(100, 30)) as shown:
        await _busy(shown)
        for size in ((40, 20), (25, 10), (120, 40), (80, 24)):
            await shown.pilot.resize_terminal(*size)
            await shown.drawn()
            _assert_fits(shown)
            assert "● connected" in shown.lines[0]
        assert "12 more" not in shown.text
        assert "replying" in shown.text


async def test_a_reply_is_shown_as_it_grows_until_it_is_whole(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.say("u1", "user", "Hello")
        await shown.dispatch(actions.set_window_conversation(shown.talk.window_id, CONV))
        await shown.dispatch(actions.begin_awaiting_ai(shown.talk.window_id, CONV))
        assert "agent: thinking …" in shown.text
        await shown.say("a1", "assistant", "Good", streaming=True)
        assert "thinking" not in shown.text
        assert "agent: Good ▌" in shown.text
        (_, view) = shown.app.screen.query(EntityView)
        await shown.say("a1", "assistant", "Good morning.", streaming=False)
        assert "agent: Good morning." in shown.text
        assert "▌" not in shown.text
        assert shown.app.screen.query(EntityView).last() is view  # changed in place


async def test_usage_and_the_turn_are_told_as_far_as_they_are_known(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        assert "tok" not in shown.text
        await shown.dispatch(actions.set_turn_stats(CONV, TurnStats(duration_ms=1_530)))
        assert "1.5 s" in shown.text
        assert "in/" not in shown.text
        await shown.dispatch(actions.set_is_streaming(CONV, True))
        await shown.dispatch(actions.update_stream_tokens(CONV, 1_234))
        assert "replying … 1,234 tok" in shown.text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("idle", "○ not connected"),
        ("connecting", "◌ connecting …"),
        ("connected", "● connected"),
        ("closed", "○ closed"),
        ("error", "✗ connection failed"),
    ],
)
async def test_each_connection_status_has_a_sign_and_words(tmp_path: Path, status: str, words: str) -> None:
    async with terminal(tmp_path, size=(40, 20)) as shown:
        await shown.dispatch(actions.set_connection_status(CONV, status))
        assert words in shown.lines[0]


async def test_hostile_text_is_shown_escaped_and_obeyed_nowhere(tmp_path: Path) -> None:
    async with terminal(tmp_path, size=(100, 50)) as shown:
        await shown.say("u1", "user", HOSTILE)
        await shown.say("x", HOSTILE, "of a role")
        await shown.dispatch(
            actions.add_entity(CONV, TimelineEntity("k", HOSTILE, 1, props={HOSTILE: HOSTILE}))
        )
        await shown.dispatch(
            actions.upsert_entity(
                CONV, TimelineEntity("e", "error", 1, props={"message": HOSTILE, "code": HOSTILE})
            )
        )
        await shown.dispatch(actions.set_model_name(CONV, HOSTILE))
        await shown.dispatch(
            actions.upsert_suggestions(CONV, entity_id="s", source="assistant", suggestions=[HOSTILE])
        )
        await shown.fail(kind="unknown_error", stage="unknown", message=HOSTILE, source=HOSTILE, code=HOSTILE)
        text = shown.text
        for sign in ("\x1b", "\x9b", "\u202e", "\u2069", "\x00", "\x07"):
            assert sign not in text
        assert (
            r"[bold]markup[/] \x1b[31mred\x1b[0m \x9b2J \u202eright\u2069 \x00 \x07 [@click=app.quit]x[/]"
            in text
        )
        await shown.press("ctrl+t")
        await shown.press("enter")
        assert "\x1b" not in shown.text
        assert "[bold]markup[/]" in shown.text


async def test_a_very_long_message_is_cut_and_says_so(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.say("a1", "assistant", "x" * 120_000)
        assert "[100,000 more characters]" in shown.text


async def test_a_timeline_of_thousands_shows_the_newest_and_says_how_many_it_leaves_out(
    tmp_path: Path,
) -> None:
    entities = [TimelineEntity(f"m{n}", "message", 1, props={"content": f"line {n}"}) for n in range(2_000)]
    async with terminal(tmp_path) as shown:
        await shown.dispatch(actions.apply_snapshot(CONV, entities))
        transcript = shown.app.screen.query_one(Transcript)
        assert len(shown.app.screen.query(EntityView)) == MOST_SHOWN
        assert "line 1999" in shown.text
        await shown.say("new", "assistant", "the newest")
        assert len(shown.app.screen.query(EntityView)) == MOST_SHOWN
        assert "the newest" in shown.text
        transcript.scroll_home(animate=False)
        await shown.drawn()
        assert f"({2_001 - MOST_SHOWN:,} earlier entries are not shown)" in shown.text


async def test_another_order_in_a_snapshot_is_followed(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.say("b", "assistant", "second")
        await shown.say("a", "user", "first")
        entities = [
            TimelineEntity("a", "message", 1, props={"role": "user", "content": "first"}),
            TimelineEntity("b", "message", 2, props={"role": "assistant", "content": "second"}),
        ]
        await shown.dispatch(actions.apply_snapshot(CONV, entities))
        assert shown.text.index("first") < shown.text.index("second")
        await shown.dispatch(actions.clear_conversation(CONV))
        assert "Nothing has been said yet." in shown.text


async def test_the_transcript_follows_until_the_reader_goes_up_and_again_from_the_end(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        for n in range(30):
            await shown.say(f"m{n}", "assistant", f"line {n}.")
        assert "line 29." in shown.text
        await shown.press("pageup", "pageup")
        await shown.say("more", "assistant", "what came meanwhile")
        assert "what came meanwhile" not in shown.text
        await shown.press("pagedown", "pagedown", "pagedown")
        assert "what came meanwhile" in shown.text
        await shown.say("last", "assistant", "and the last")
        assert "and the last" in shown.text


async def test_enter_sends_and_the_arrow_brings_it_back(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.write("one")
        await shown.press("ctrl+j")
        await shown.write("two")
        await shown.press("enter")
        assert shown.talk.asked == ["send one\ntwo"]
        box = shown.app.screen.query_one(TextArea)
        assert box.text == ""
        await shown.press("up")
        assert box.text == "one\ntwo"
        await shown.press("down")
        assert box.text == ""
        await shown.press("enter", "space", "enter")  # nothing written: nothing sent
        assert len(shown.talk.asked) == 1


async def test_what_is_being_written_is_not_lost_to_the_arrow(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.write("sent")
        await shown.press("enter")
        await shown.write("half")
        await shown.press("up")
        assert shown.app.screen.query_one(TextArea).text == "half"


async def test_a_pasted_text_keeps_its_lines_and_loses_its_terminal_commands(tmp_path: Path) -> None:
    from textual import events

    async with terminal(tmp_path) as shown:
        shown.app.post_message(events.Paste("a\r\nb\x1b[31mc\x9b\td"))
        await shown.drawn()
        await shown.press("enter")
        assert shown.talk.asked == ["send a\nb[31mc\td"]


@pytest.mark.parametrize(
    ("status", "kept"), [(413, True), (400, True), (429, False), (503, False), (None, False)]
)
async def test_a_prompt_that_will_be_refused_again_comes_back_to_be_changed(
    tmp_path: Path, status: int | None, kept: bool
) -> None:
    async with terminal(tmp_path) as shown:
        shown.talk.raises = ChatHttpError("no", status=status, stage=ChatErrorStage.SEND, url="http://x")
        await shown.write("hello")
        await shown.press("enter")
        assert shown.app.screen.query_one(TextArea).text == ("hello" if kept else "")


async def test_one_key_retries_where_that_may_help_and_says_so_where_it_does_not(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.press("ctrl+r")
        assert shown.talk.asked == []
        await shown.fail(kind="http_error", stage="send", status=400, message="no prompt")
        assert "^R retry" not in shown.text
        await shown.press("ctrl+r")
        assert shown.talk.asked == []
        assert "Trying again will not help. ^T says what will." in shown.said
        await shown.fail(kind="http_error", stage="send", status=503, message="busy")
        assert "^R retry" in shown.text
        await shown.press("ctrl+r")
        assert shown.talk.asked == ["retry"]


async def test_one_key_clears_the_error_and_one_reconnects(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.fail(kind="ws_close", stage="disconnect", message="gone")
        bar = shown.app.screen.query_one(ErrorBar)
        assert bar.display
        await shown.press("ctrl+l")
        assert not bar.display
        await shown.press("ctrl+o")
        assert shown.talk.asked == ["clear_error", "reconnect"]


async def test_an_error_that_came_again_says_how_often(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.fail(kind="ws_error", stage="stream", message="refused", details={"repeats": 4})
        assert "The connection failed (again, 4 times)" in shown.text


async def test_suggestions_are_put_into_the_message_and_consumed_when_sent(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        suggested = actions.upsert_suggestions(
            CONV, entity_id="s", source="assistant", suggestions=["Tell me more", "Stop"]
        )
        await shown.dispatch(suggested)
        assert "^N Tell me more" in shown.text
        await shown.press("ctrl+n", "ctrl+n")
        assert shown.app.screen.query_one(TextArea).text == "Stop"
        await shown.press("enter")
        assert shown.talk.asked == ["send Stop"]
        assert "^N Tell me more" not in shown.text


async def test_the_help_names_every_key_and_goes_away(tmp_path: Path) -> None:
    from voicethere.cli.chat import keys

    async with terminal(tmp_path, size=(40, 200)) as shown:
        await shown.press("f1")
        for key in keys.CONVERSATION:
            assert f"{key.shown} {key.short}" in shown.text
        await shown.press("escape")
        assert "● connected" in shown.lines[0]


async def test_what_is_written_before_the_conversation_is_open_goes_out_then(tmp_path: Path) -> None:
    opened = asyncio.Event()
    async with terminal(tmp_path, opened=opened) as shown:
        await shown.press("ctrl+r", "ctrl+l", "ctrl+o")
        assert shown.said == ["Not connected yet: one moment."] * 3
        await shown.write("early")
        await shown.press("enter")
        await shown.write("then")
        await shown.press("enter")
        assert shown.said[-1] == "Your message goes out as soon as the conversation is open."
        assert shown.talk.asked == []
        opened.set()
        await shown.until(lambda: shown.talk.asked == ["send early", "send then"])


async def test_without_colours_what_is_selected_is_underlined(tmp_path: Path) -> None:
    async with terminal(tmp_path, no_color=True) as shown:
        await shown.fail(kind="ws_error", stage="stream", message="first")
        await shown.fail(kind="ws_close", stage="disconnect", message="second")
        await shown.press("ctrl+t")
        strips = shown.app.screen._compositor.render_strips(shown.app.size)
        marked = [
            strip.text
            for strip in strips
            if any("The connection" in part.text and part.style and part.style.underline for part in strip)
        ]
        assert len(marked) == 1
        assert "second" in marked[0]


async def test_quit_ends_the_application_and_leaves_the_conversation(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shown:
        await shown.press("ctrl+q")
        assert not shown.app.is_running or shown.app._exit
