"""A client that is lost and comes back, or does not: the runner's side of a session, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.unit.runner.hosted_call import HostedCall
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.virtual_time import LoopClock, in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.relay import TokenIssued, TokenWanted
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

NEVER_IDLE = SessionSettings(idle_timeout_enabled=False)


def now() -> float:
    return asyncio.get_running_loop().time()


def crash(call: HostedCall) -> None:
    call.child.say(
        ipc.AgentError(session_id="s", hook="on_data_channel_message", message="ValueError: no", stack="…")
    )


@in_virtual_time
async def test_a_client_that_does_not_come_back_within_the_grace_ends_the_session_without_an_error() -> None:
    async with HostedCall(Mode.DATA, settings=NEVER_IDLE) as call:
        lost_at = now()
        call.client.events.lost()
        await call.host.over.wait()
        assert 30 <= now() - lost_at < 36
        assert await call.stored() == ([], "client_disconnected")
        assert call.child.of(ipc.SessionEnd)


@in_virtual_time
async def test_a_client_that_comes_back_finds_its_agent_as_it_was() -> None:
    async with HostedCall(Mode.DATA, settings=NEVER_IDLE) as call:
        agent = call.child
        for _ in range(3):
            call.client.events.lost()
            await asyncio.sleep(29)
            await call.connect()
        await asyncio.sleep(300)
        assert not call.host.over.is_set()
        assert call.sandbox.children == [agent]
        assert len(agent.of(ipc.SessionStart)) == 1


@in_virtual_time
async def test_what_goes_wrong_while_the_client_is_away_is_told_when_it_is_back() -> None:
    async with HostedCall(Mode.DATA, settings=NEVER_IDLE) as call:
        call.client.events.lost()
        await asyncio.sleep(1)
        crash(call)
        await asyncio.sleep(20)
        assert call.errors() == []
        call.client.events.opened()
        await asyncio.sleep(0.1)
        assert call.errors() == [("AGENT_HANDLER_FAILED", False)]
        await call.host.over.wait()
        assert await call.stored() == ([("AGENT_HANDLER_FAILED", False)], "agent_error")


@in_virtual_time
async def test_what_went_into_a_dead_connection_is_told_again_and_stored_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with HostedCall(Mode.DATA, settings=NEVER_IDLE) as call:

        async def nobody_acknowledges(seconds: float) -> bool:
            await asyncio.sleep(seconds)
            return False

        with monkeypatch.context() as dead:
            dead.setattr(call.client, "flush", nobody_acknowledges)
            crash(call)
            await asyncio.sleep(6)
            call.client.events.lost()
            await asyncio.sleep(6)
        assert not call.host.over.is_set()
        call.client.events.opened()
        await call.host.over.wait()
        first, second = call.told("session_error")
        assert first == second
        assert await call.stored() == ([("AGENT_HANDLER_FAILED", False)], "agent_error")


@in_virtual_time
async def test_tokens_are_renewed_well_before_they_expire_and_at_every_return() -> None:
    async with HostedCall(Mode.DATA, settings=NEVER_IDLE) as call:
        wanted: list[float] = []

        def issue(message: Any) -> None:
            if isinstance(message, TokenWanted):
                wanted.append(round(now(), 1))
                expires_at = iso_from_epoch(LoopClock().now() + 600)
                call.host.token_issued(
                    TokenIssued(session_id="s", token=f"token {len(wanted)}", expires_at=expires_at)
                )

        call.host._parts = msgspec.structs.replace(call.host._parts, send=issue)
        began = now()
        call.client.events.opened()  # connected: the first one comes at once
        await asyncio.sleep(700)
        assert [at - round(began, 1) for at in wanted] == pytest.approx([0, 300, 600], abs=0.2)
        call.client.events.lost()
        await asyncio.sleep(10)
        call.client.events.opened()
        assert wanted[3] == round(now(), 1)
        await asyncio.sleep(250)
        tokens = [message["token"] for message in call.told("session_reconnect_token")]
        assert tokens == [f"token {number}" for number in range(1, len(wanted) + 1)]
        assert len(wanted) == 4
