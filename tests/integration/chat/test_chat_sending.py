"""Prompts: accepted, refused, lost; and the placeholder behind the user's message."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.chatting import CONV, rig
from voicethere.chat import ChatHttpError, ChatTimings, selectors
from voicethere.testing.chat_server import ChatRequest, Wire


@pytest.mark.states("sem-chat/post-chat")
async def test_a_prompt_is_posted_and_its_answer_streams_in() -> None:
    """sem-chat: "`POST {base}/chat` with `{"prompt", "conv_id"}` … submits a user's prompt"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.send(CONV, "hello")
        assert chat.server.prompts == [{"prompt": "hello", "conv_id": CONV}]
        await chat.until(lambda: chat.texts == ["hello", "You said: hello"] and not chat.is_streaming)
        assert chat.errors == ()


@pytest.mark.states("sem-chat/unknown-id/any-first")
async def test_a_prompt_needs_no_socket() -> None:
    """sem-chat: "any of the three requests may come first"."""
    async with rig() as chat:
        await chat.manager.send(CONV, "hello")
        assert chat.server.paths() == ["/chat"]
        await chat.manager.connect(CONV)
        assert chat.texts == ["hello", "You said: hello"]


@pytest.mark.states(
    "sem-chat/post-chat/failure",
    "chat-state/producers/prompt-refused",
    "chat-state/producers/prompt-refused/url",
    "chat-state/manager/send-raises",
    "chat-state/manager/http-error",
    "seed-2/producers/submit-failure",
    "seed-2/plan/http-status-and-source",
    "seed-2/problem/metadata/http-status",
)
async def test_a_refused_prompt_is_recorded_and_raised() -> None:
    """chat-state: "prompt not accepted | `http_error` | `send` | `status`, `details.url`"."""
    async with rig() as chat:
        chat.server.refuse(
            "/chat", 429, "  Too many prompts.\n", [("x-error-code", "MONTHLY_USAGE_EXCEEDED")]
        )
        with pytest.raises(ChatHttpError) as raised:
            await chat.manager.send(CONV, "hello")
        url = f"{chat.server.base_url}/chat"
        failure = raised.value
        assert (failure.status, failure.stage, failure.url) == (429, "send", url)
        assert str(failure) == failure.message == "Too many prompts."
        (error,) = chat.errors
        assert (error.kind, error.stage, error.status) == ("http_error", "send", 429)
        assert (error.message, error.recoverable) == ("Too many prompts.", True)
        assert (error.details, error.source) == ({"url": url}, "submit_prompt")
        assert error.code == "MONTHLY_USAGE_EXCEEDED"


@pytest.mark.states("sem-chat/post-chat/fallback", "chat-state/normalize/http-status")
@pytest.mark.parametrize(("status", "recoverable"), [(400, False), (404, False), (429, True), (503, True)])
async def test_a_refusal_without_words_gets_the_fallback(status: int, recoverable: bool) -> None:
    """sem-chat: "fallback: `chat request failed (<status>)`"."""
    async with rig() as chat:
        chat.server.refuse("/chat", status, "  \n")
        with pytest.raises(ChatHttpError):
            await chat.manager.send(CONV, "hello")
        (error,) = chat.errors
        assert error.message == f"chat request failed ({status})"
        assert error.recoverable is recoverable


@pytest.mark.states(
    "chat-state/producers/prompt-failed", "chat-state/manager/send-raises", "seed-2/producers/send-failure"
)
async def test_a_prompt_that_got_no_answer_is_a_runtime_error() -> None:
    """chat-state: "prompt failed otherwise | `runtime_error` | `send`"."""

    async def hang_up(request: ChatRequest, wire: Wire) -> None:
        wire.reset()

    async with rig() as chat:
        chat.server.take_over("/chat", hang_up)
        with pytest.raises(ChatHttpError) as raised:
            await chat.manager.send(CONV, "hello")
        assert raised.value.status is None
        assert chat.kinds == ["runtime_error/send"]
        assert "chat request failed" in chat.errors[0].message
        chat.server.take_over("/chat", None)
        await chat.manager.send(CONV, "again")


@pytest.mark.states("chat-state/producers/prompt-failed")
async def test_a_prompt_that_nobody_answers_fails_in_time() -> None:
    async with rig(timings=ChatTimings(prompt_timeout=0.05)) as chat:
        held = chat.server.hold("/chat")
        with pytest.raises(ChatHttpError, match=r"no whole answer within 0\.05 s"):
            await chat.manager.send(CONV, "hello")
        assert chat.kinds == ["runtime_error/send"]
        held.set()


@pytest.mark.states("chat-state/window/placeholder")
async def test_the_placeholder_shows_from_the_users_message_to_the_answer() -> None:
    """chat-state: "The placeholder shows from the user's message until the first entity of anyone else"."""

    def shown() -> bool:
        return selectors.select_should_show_pending_ai_placeholder(chat.store.state, CONV, CONV)

    async with rig(on_prompt=lambda server, conv_id, prompt: None) as chat:
        await chat.manager.connect(CONV)
        accepting = chat.server.hold("/chat")
        sending = asyncio.create_task(chat.manager.send(CONV, "hello"))
        await chat.server.until(lambda: "/chat" in chat.server.paths())
        assert not shown()
        accepting.set()
        await sending
        chat.server.upsert(CONV, "u1", "message", {"role": "user", "content": "hello"})
        await chat.until(lambda: chat.texts == ["hello"])
        assert shown()
        chat.server.upsert(CONV, "a1", "message", {"role": "assistant", "content": "Hi."})
        await chat.until(lambda: len(chat.texts) == 2)
        assert not shown()


async def test_the_placeholder_goes_when_the_prompt_is_refused() -> None:
    async with rig() as chat:
        chat.server.refuse("/chat", 500)
        with pytest.raises(ChatHttpError):
            await chat.manager.send(CONV, "hello", window_id="w")
        assert not selectors.select_should_show_pending_ai_placeholder(chat.store.state, "w", CONV)


async def test_prompts_that_are_none_are_refused_before_anything_is_sent() -> None:
    async with rig() as chat:
        with pytest.raises(ValueError, match="must not be blank"):
            await chat.manager.send(CONV, " \n")
        with pytest.raises(ValueError, match="must be Unicode text"):
            await chat.manager.send(CONV, "a\udcff")
        with pytest.raises(TypeError, match="must be a string, not bytes"):
            await chat.manager.send(CONV, b"hello")  # type: ignore[arg-type]
        assert (chat.server.accepted, chat.errors) == (0, ())


async def test_headers_that_could_not_be_made_fail_the_prompt_with_words() -> None:
    def headers() -> dict[str, str]:
        raise LookupError("no token")

    async with rig(headers=headers) as chat:
        with pytest.raises(ChatHttpError, match="LookupError: no token") as raised:
            await chat.manager.send(CONV, "hello")
        assert (raised.value.status, raised.value.stage) == (None, "send")
        assert chat.kinds == ["runtime_error/send"]


async def test_headers_are_asked_for_anew_for_each_attempt() -> None:
    tokens = iter("abc")

    async def headers() -> dict[str, str]:
        return {"Authorization": next(tokens)}

    async with rig(headers=headers) as chat:
        await chat.manager.connect(CONV)
        await chat.manager.send(CONV, "hello")
        given = [(request.path, request.headers["authorization"]) for request in chat.server.requests]
        assert given == [("/ws", "a"), ("/api/timeline", "a"), ("/chat", "b")]
