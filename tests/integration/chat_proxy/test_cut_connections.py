"""Connections to a real gateway that are cut: what is recorded, and that the conversation gets over it.

The records are those of the contract's table (chat-state.md), one for each thing that happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.chat_proxy.behind import Behind, behind
from tests.integration.chat_proxy.conftest import Gateway
from voicethere.chat import ChatHttpError, ChatTimings
from voicethere.testing.bad_network import Armed, Fault, How

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

# A test shortens only the time that runs out in it: what is only late on a busy machine is no failure.
SECONDS = 30.0
CUTS = [How.RESET, How.END]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(gateway: Gateway) -> AsyncIterator[str]:
    """A conversation in which something was said."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        for prompt in ("hello", "count 5", "card one"):
            await chat.manager.send(chat.conv_id, prompt)
        await chat.said("".join(f"word {number}, " for number in range(5)))
        await chat.goodbye()
        assert chat.errors == ()
        yield chat.conv_id


async def happened(armed: Armed) -> None:
    async with asyncio.timeout(SECONDS):
        await armed.happened.wait()


async def over_it(chat: Behind, *, connections: int) -> None:
    """The client has what the gateway has, after so many connections of its socket."""
    await chat.same_as_gateway()
    assert chat.phases["connect.begin"] == connections


# ---------------------------------------------------------------------- the socket


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("plus", [0, 30])
async def test_a_socket_cut_within_its_request(gateway: Gateway, told: str, how: How, plus: int) -> None:
    """chat-state: "socket error | `ws_error` | `stream` | … `details.opened` tells whether it had been"."""
    async with behind(gateway.base_url, conv_id=told) as chat:
        await _not_opened(chat, chat.before("GET /ws", plus, how))


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("plus", [0, 20, 60])
async def test_a_socket_cut_within_its_answer(gateway: Gateway, told: str, how: How, plus: int) -> None:
    async with behind(gateway.base_url, conv_id=told) as chat:
        await _not_opened(chat, chat.after(b"HTTP/1.1 101", plus, how))


async def _not_opened(chat: Behind, fault: Fault) -> None:
    cut = chat.network.arm(fault)
    await chat.manager.connect(chat.conv_id)
    await happened(cut)
    await over_it(chat, connections=2)
    assert chat.kinds == ["ws_error/stream"]
    assert (chat.errors[0].details or {})["opened"] is False
    assert chat.errors[0].recoverable


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize(
    "place",
    [(b"\r\n\r\n", 4), (b'{"sem":true', 0), (b'{"sem":true', 50), (b'"content":"word 0', 12)],
    ids=["after 101", "before a frame", "within a frame", "within a later frame"],
)
async def test_a_socket_cut_while_it_is_open(
    gateway: Gateway, told: str, how: How, place: tuple[bytes, int]
) -> None:
    """chat-state: "socket closed unexpectedly … | `ws_close` | `disconnect` | close code and reason"."""
    async with behind(gateway.base_url, conv_id=told) as chat:
        cut = chat.network.arm(chat.after(*place, how))
        await chat.manager.connect(chat.conv_id)
        await happened(cut)
        await chat.until(lambda: chat.phases["connect.begin"] == 2)
        await over_it(chat, connections=2)
        _lost_once(chat, how)


def _lost_once(chat: Behind, how: How) -> None:
    (error,) = chat.errors
    if how is How.RESET:
        assert chat.kinds == ["ws_error/stream"]
        assert (error.details or {})["opened"] is True
    else:
        assert chat.kinds == ["ws_close/disconnect"]
        assert error.details == {"code": 1006, "reason": ""}


async def test_a_socket_that_is_never_answered(gateway: Gateway, told: str) -> None:
    async with behind(
        gateway.base_url, conv_id=told, timings=ChatTimings(open_wait=0.2, open_timeout=2.0)
    ) as chat:
        stall = chat.network.arm(chat.before("GET /ws", 10, How.STALL))
        await chat.manager.connect(chat.conv_id)
        await happened(stall)
        await chat.until(lambda: chat.errors)
        await over_it(chat, connections=2)
        assert chat.kinds == ["ws_error/stream"]
        assert (chat.errors[0].details or {})["opened"] is False


async def test_an_open_socket_that_falls_silent(gateway: Gateway, told: str) -> None:
    """Nobody closes it: that nothing answers a ping is how it is known to be dead."""
    async with behind(gateway.base_url, conv_id=told, timings=ChatTimings(ping_interval=1.0)) as chat:
        await chat.manager.connect(chat.conv_id)
        stall = chat.network.arm(Fault(toward=chat.before("").toward, at=b"\x89", how=How.STALL))
        await happened(stall)
        await chat.until(lambda: chat.errors)
        await over_it(chat, connections=2)
        assert chat.kinds == ["ws_error/stream"]
        details = chat.errors[0].details or {}
        assert (details["opened"], details["code"]) == (True, 1011)


# ---------------------------------------------------------------------- the snapshot


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("plus", [0, 30])
async def test_a_snapshot_cut_within_its_request(gateway: Gateway, told: str, how: How, plus: int) -> None:
    """chat-state: "snapshot request failed, or its body made no sense | `hydrate_error` | `hydrate`"."""
    async with behind(gateway.base_url, conv_id=told) as chat:
        await _not_hydrated(chat, chat.before("GET /api/timeline", plus, how))


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize(
    "place",
    [(b"HTTP/1.1 200", 0), (b"HTTP/1.1 200", 20), (b"\r\n\r\n{", 4), (b'"serverTimeMs"', 40)],
    ids=["before the answer", "within the head", "before the body", "within the body"],
)
async def test_a_snapshot_cut_within_its_answer(
    gateway: Gateway, told: str, how: How, place: tuple[bytes, int]
) -> None:
    async with behind(gateway.base_url, conv_id=told) as chat:
        await _not_hydrated(chat, chat.after(*place, how))


async def test_a_snapshot_that_is_never_answered(gateway: Gateway, told: str) -> None:
    async with behind(gateway.base_url, conv_id=told, timings=ChatTimings(snapshot_timeout=1.0)) as chat:
        await _not_hydrated(chat, chat.after(b"HTTP/1.1 200", 10, How.STALL))


async def _not_hydrated(chat: Behind, fault: Fault) -> None:
    cut = chat.network.arm(fault)
    await chat.manager.connect(chat.conv_id)
    await happened(cut)
    # What the snapshot would have told the gateway tells a socket that opens, too.
    await over_it(chat, connections=1)
    assert chat.kinds == ["hydrate_error/hydrate"]
    assert chat.errors[0].recoverable
    assert chat.phases["hydrate.fetch.error"] == chat.phases["hydrate.complete"] == 1


# ---------------------------------------------------------------------- prompts


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("place", ["before", "head", "body"])
async def test_a_prompt_cut_within_its_request(gateway: Gateway, how: How, place: str) -> None:
    """chat-state: "prompt failed otherwise | `runtime_error` | `send`". The gateway never had it."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        within_body = Fault(toward=chat.before("").toward, at=b'"prompt"', plus=12, how=how)
        places = {
            "before": chat.before("POST /chat", 0, how),
            "head": chat.before("POST /chat", 30, how),
            "body": within_body,
        }
        chat.network.arm(places[place])
        await _not_sent(chat, "first")
        await chat.manager.send(chat.conv_id, "goodbye second")
        await chat.said("Goodbye second.")
        await over_it(chat, connections=1)
        assert chat.texts == ["goodbye second", "Goodbye second."]


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("plus", [0, 10])
async def test_a_prompt_whose_answer_is_lost(gateway: Gateway, how: How, plus: int) -> None:
    """It was accepted, which nobody can tell the user: it is not sent again behind the user's back."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        chat.network.arm(chat.after(b"HTTP/1.1 202", plus, how))
        await _not_sent(chat, "first")
        await chat.said("You said: first")
        await chat.manager.send(chat.conv_id, "goodbye second")
        await chat.said("Goodbye second.")
        await over_it(chat, connections=1)
        assert chat.texts == ["first", "You said: first", "goodbye second", "Goodbye second."]


async def _not_sent(chat: Behind, prompt: str) -> None:
    with pytest.raises(ChatHttpError) as raised:
        await chat.manager.send(chat.conv_id, prompt)
    assert (raised.value.status, raised.value.stage) == (None, "send")
    assert chat.kinds == ["runtime_error/send"]
    assert chat.errors[0].recoverable


@pytest.mark.parametrize("how", CUTS)
async def test_a_prompt_whose_answers_body_is_cut_was_accepted(gateway: Gateway, how: How) -> None:
    """sem-chat: "2xx accepted": nothing is recorded."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        # Also of the accepted prompt's body, of which the client needs nothing.
        cut = chat.network.arm(chat.after(b'{"conv_id"', 3, how))
        await chat.manager.send(chat.conv_id, "goodbye now")
        await happened(cut)
        await chat.said("Goodbye now.")
        await over_it(chat, connections=1)
        assert chat.errors == ()


async def test_a_prompt_that_is_never_answered(gateway: Gateway) -> None:
    async with behind(gateway.base_url, timings=ChatTimings(prompt_timeout=1.0)) as chat:
        await chat.manager.connect(chat.conv_id)
        chat.network.arm(chat.before("POST /chat", 20, How.STALL))
        await _not_sent(chat, "lost")
        assert await chat.truth() == []


# ---------------------------------------------------------------------- between and within replies


@pytest.mark.parametrize("how", CUTS)
async def test_everything_is_cut_between_two_prompts(gateway: Gateway, how: How) -> None:
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        await chat.manager.send(chat.conv_id, "first")
        await chat.until(lambda: "You said: first" in chat.texts)
        assert await chat.network.sever(how) >= 2
        # The connection that was kept for the next request is gone, too: another one is made.
        await chat.manager.send(chat.conv_id, "goodbye second")
        await chat.said("Goodbye second.")
        await over_it(chat, connections=2)
        assert chat.texts == ["first", "You said: first", "goodbye second", "Goodbye second."]
        _lost_once(chat, how)


@pytest.mark.parametrize("how", CUTS)
async def test_a_reply_goes_on_after_its_socket_was_cut(gateway: Gateway, how: How) -> None:
    """chat-state: "streaming stops"; sem-chat: the stream that still runs is told of by the snapshot."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        await chat.manager.send(chat.conv_id, "pause")
        await chat.until(lambda: "Before. Still before. " in chat.texts)
        assert chat.is_streaming
        chat.network.refuse()
        await chat.network.sever(how)
        await chat.until(lambda: not chat.is_streaming)
        await chat.network.admit()
        await chat.until(lambda: chat.is_streaming)
        await chat.manager.send(chat.conv_id, "on")
        await chat.until(lambda: not chat.is_streaming)
        await chat.said("Before. Still before. After.")
        await chat.goodbye()
        assert chat.texts[:3] == ["pause", "Before. Still before. After.", "on"]


@pytest.mark.parametrize("how", CUTS)
async def test_a_reply_that_ended_meanwhile_is_over(gateway: Gateway, how: How) -> None:
    """sem-chat: "a stream cut off by a lost socket must not stay open"."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        await chat.manager.send(chat.conv_id, "pause")
        await chat.until(lambda: "Before. Still before. " in chat.texts)
        chat.network.refuse()
        await chat.network.sever(how)
        await chat.until(lambda: chat.errors)
        await chat.say("on")
        await chat.said("Before. Still before. After.")
        await chat.network.admit()
        await chat.same_as_gateway()
        assert not chat.is_streaming
        assert len(chat.errors) <= 20
        await chat.goodbye()


@pytest.mark.parametrize("how", CUTS)
async def test_a_socket_cut_within_a_reply(gateway: Gateway, how: How) -> None:
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        cut = chat.network.arm(chat.after(b'"cumulative":"word 0, word 1, word 2', 25, how))
        await chat.manager.send(chat.conv_id, "count 30")
        await happened(cut)
        whole = "".join(f"word {number}, " for number in range(30))
        await chat.said(whole)
        await over_it(chat, connections=2)
        assert chat.texts == ["count 30", whole]
        _lost_once(chat, how)
        await chat.goodbye()


async def test_an_error_that_was_told_while_nobody_heard_it(gateway: Gateway) -> None:
    """sem-chat: "a reload shows what happened": the entity is in the timeline, the record's frame is gone."""
    async with behind(gateway.base_url) as chat:
        await chat.manager.connect(chat.conv_id)
        chat.network.refuse()
        await chat.network.sever()
        await chat.say("please crash now")
        await chat.failed()
        await chat.network.admit()
        await chat.same_as_gateway()
        (error,) = [entity for entity in chat.timeline if entity[1] == "error"]
        assert error[4]["code"] == "AGENT_HANDLER_FAILED"
        assert not chat.is_streaming
