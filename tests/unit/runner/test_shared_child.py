"""Sessions that share a child: who hears of what, when it starts, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runner.hosted_call import HostedCall, new_supply
from tests.unit.runner.scripted_children import ScriptedSandbox
from voicethere.core.ports import ChildProcess, ChildSpec, SandboxUnavailable
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings

NEVER_IDLE = SessionSettings(idle_timeout_enabled=False)


class Runner:
    """A supply of agents, and the sessions that use it."""

    def __init__(self) -> None:
        self.sandbox = ScriptedSandbox()
        self.supply = new_supply(self.sandbox, linger_seconds=5.0)

    def call(self, session_id: str, **deployed: Any) -> HostedCall:
        options = {"shared_child_per_session": True, "settings": NEVER_IDLE, **deployed}
        return HostedCall(
            Mode.DATA, session_id=session_id, sandbox=self.sandbox, agents=self.supply, **options
        )


@contextlib.asynccontextmanager
async def runner() -> AsyncIterator[Runner]:
    made = Runner()
    yield made
    await made.supply.aclose()
    assert all(child.killed for child in made.sandbox.children)


def sent_to(call: HostedCall) -> list[Any]:
    return [message for _, message in call.client.sent if message.get("type") == "note"]


@in_virtual_time
async def test_one_child_has_the_sessions_of_one_deployment_each_with_its_own_context() -> None:
    async with runner() as made, made.call("s1") as one, made.call("s2") as two:
        (child,) = made.sandbox.children
        starts = child.of(ipc.SessionStart)
        assert [start.session_id for start in starts] == ["s1", "s2"]
        assert [start.customer_context for start in starts] == [{"user": "s1"}, {"user": "s2"}]
        assert [start.env["SESSION_ID"] for start in starts] == ["s1", "s2"]
        assert not {"SESSION_ID", "AGENT_CUSTOMER_CONTEXT"} & set(child.spec.environment)
        assert child.spec.environment["PROJECT_ID"] == "p"
        one.send({"type": "chat", "text": "from one"})
        two.send({"type": "chat", "text": "from two"})
        child.say(ipc.SendToClient(session_id="s2", payload='{"type":"note","for":"two"}'))
        await asyncio.sleep(0.1)
        assert [message.session_id for message in child.of(ipc.DataChannelMessage)] == ["s1", "s2"]
        assert (sent_to(one), sent_to(two)) == ([], [{"type": "note", "for": "two"}])


@pytest.mark.parametrize(
    "other",
    [{"environment": {"AGENT_REGION": "eu"}}, {"secrets": {"KEY": "k"}}, {"shared_child_per_session": False}],
)
@in_virtual_time
async def test_another_deployment_has_another_child(other: dict[str, Any]) -> None:
    async with runner() as made, made.call("s1"), made.call("s2", **other):
        assert len(made.sandbox.children) == 2


@in_virtual_time
async def test_a_crash_is_told_to_all_of_them_and_recorded_for_each() -> None:
    async with runner() as made, made.call("s1") as one, made.call("s2") as two:
        made.sandbox.children[0].die()
        for call in (one, two):
            await call.host.over.wait()
            assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
            assert await call.stored() == ([("AGENT_CHILD_CRASHED", False)], "agent_error")


@in_virtual_time
async def test_a_handler_that_raises_ends_its_own_session_only() -> None:
    async with runner() as made, made.call("s1") as one, made.call("s2") as two:
        (child,) = made.sandbox.children
        child.say(ipc.AgentError(session_id="s1", hook="h", message="E: no", stack="…"))
        await one.host.over.wait()
        assert one.errors() == [("AGENT_HANDLER_FAILED", False)]
        await asyncio.sleep(60)
        two.send({"type": "chat", "text": "still there?"})
        await asyncio.sleep(0.1)
        assert child.of(ipc.DataChannelMessage)[-1].session_id == "s2"
        assert (two.errors(), child.killed) == ([], False)


@in_virtual_time
async def test_a_failure_that_is_nobodys_is_everybodys_and_newcomers_get_another_child() -> None:
    async with runner() as made, made.call("s1") as one, made.call("s2") as two:
        made.sandbox.children[0].say(ipc.AgentError(session_id=None, hook="h", message="E: no", stack="…"))
        await one.moment("session_error")
        await two.moment("session_error")
        async with made.call("s3") as three:
            assert len(made.sandbox.children) == 2
            assert three.errors() == []


@in_virtual_time
async def test_restarting_starts_one_child_for_all_of_them() -> None:
    policy = {"agent_crash_policy": AgentCrashPolicy.RESTART_CHILD}
    async with runner() as made, made.call("s1", **policy) as one, made.call("s2", **policy) as two:
        made.sandbox.children[0].die()
        await asyncio.sleep(1)
        assert len(made.sandbox.children) == 2
        assert {start.session_id for start in made.sandbox.children[1].of(ipc.SessionStart)} == {"s1", "s2"}
        await asyncio.sleep(20)
        for call in (one, two):
            assert call.errors() == [("AGENT_CHILD_CRASHED", True)]
        assert not made.sandbox.children[1].killed


@in_virtual_time
async def test_it_waits_a_moment_for_the_next_session_and_then_ends() -> None:
    async with runner() as made:
        async with made.call("s1"):
            pass
        await asyncio.sleep(4)
        async with made.call("s2"):
            await asyncio.sleep(60)
        assert len(made.sandbox.children) == 1
        await asyncio.sleep(4)
        assert not made.sandbox.children[0].killed
        await asyncio.sleep(2)
        assert made.sandbox.children[0].killed
        async with made.call("s3"):
            assert len(made.sandbox.children) == 2


@in_virtual_time
async def test_a_session_that_does_not_end_does_not_hold_up_its_host() -> None:
    async with runner() as made, made.call("s1") as one, made.call("s2"):
        (child,) = made.sandbox.children
        keep = child.say
        child.say = lambda message: None if isinstance(message, ipc.SessionEndAck) else keep(message)  # type: ignore[method-assign]
        one.send({"type": "session_close"})
        async with asyncio.timeout(8):
            await one.host.over.wait()
        assert not child.killed


class _NoSandbox(ScriptedSandbox):
    async def start(self, spec: ChildSpec) -> ChildProcess:
        await asyncio.sleep(0.01)
        raise SandboxUnavailable("no fork today")


@in_virtual_time
async def test_a_child_that_cannot_be_started_is_told_to_all_who_wanted_it() -> None:
    supply = new_supply(_NoSandbox())
    refused = []

    async def wants(session_id: str, on_event: Callable[[Any], None]) -> None:
        deployed = HostedCall(Mode.DATA, shared_child_per_session=True).host._agent
        agent = supply.agent(
            session_id,
            deployed,
            bundle_dir=Path("bundle"),
            environment={},
            on_event=on_event,
            redact=lambda text: text,
        )
        try:
            await agent.start()
        except SandboxUnavailable as error:
            refused.append(str(error))
        await agent.stop(0)

    await asyncio.gather(*(wants(name, refused.append) for name in ("s1", "s2")))
    assert refused == ["no fork today"] * 2
    await asyncio.sleep(1)
    await supply.aclose()
