"""Children that are ready before their session: who gets them, and whom their ends concern."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.runner.hosted_call import HostedCall, new_supply
from tests.unit.runner.scripted_children import ScriptedChild, ScriptedSandbox
from voicethere.core.ports import ChildProcess, ChildSpec, OutputLine, SandboxUnavailable
from voicethere.roles.runner.agent_events import AgentEvent, LogLine
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.warm_child import MAX_KEPT_LINES
from voicethere.roles.runner.warm_children import WarmRules
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings

# As `HostedCall` makes it.
AGENT = DeployedAgent(
    project_id="p",
    build_id="b",
    bundle_checksum="c",
    mode=Mode.DATA,
    settings=SessionSettings(idle_timeout_enabled=False),
)


class Warm:
    """A supply that keeps children warm, and the sessions that use it."""

    def __init__(self, sandbox: ScriptedSandbox, supply: AgentSupply) -> None:
        self.sandbox = sandbox
        self.supply = supply

    @property
    def children(self) -> list[ScriptedChild]:
        return self.sandbox.children

    @property
    def waiting(self) -> int:
        return self.supply.warm.waiting

    async def keep(self, *agents: DeployedAgent) -> None:
        self.supply.keep_warm(agents)
        await asyncio.sleep(0.1)

    def call(self, session_id: str = "s", **deployed: Any) -> HostedCall:
        options = {"settings": AGENT.settings, **deployed}
        return HostedCall(
            Mode.DATA, session_id=session_id, sandbox=self.sandbox, agents=self.supply, **options
        )


@contextlib.asynccontextmanager
async def warm(
    *agents: DeployedAgent, sandbox: ScriptedSandbox | None = None, **options: Any
) -> AsyncIterator[Warm]:
    """A supply, told to keep these agents warm."""
    sandbox = sandbox or ScriptedSandbox()
    made = Warm(sandbox, new_supply(sandbox, **options))
    await made.keep(*agents)
    yield made
    await made.supply.aclose()
    await asyncio.sleep(0.1)
    assert all(child.killed for child in sandbox.children)


def variant(**changes: Any) -> DeployedAgent:
    return msgspec.structs.replace(AGENT, **changes)


@in_virtual_time
async def test_a_conversation_with_an_agent_that_has_audio_gets_its_warm_child() -> None:
    async with warm(variant(mode=Mode.VOICE)) as made:
        (ready,) = made.children
        async with made.call():  # in mode `data`, as a conversation is assigned
            assert ready.of(ipc.SessionStart)
            assert made.supply.warm.taken == 1


@in_virtual_time
async def test_a_session_gets_the_child_that_is_ready_and_the_next_is_made() -> None:
    async with warm(AGENT) as made:
        (ready,) = made.children
        assert [type(message) for message in ready.got] == [ipc.LoadAgent]
        async with made.call() as call:
            (start,) = ready.of(ipc.SessionStart)
            assert start.env["SESSION_ID"] == "s"
            assert start.customer_context == {"user": "s"}
            assert len(made.children) == 2
            assert made.waiting == 1
            assert made.children[1].of(ipc.SessionStart) == []
            call.send({"type": "chat", "text": "hello"})
            await asyncio.sleep(0.1)
            assert len(ready.of(ipc.DataChannelMessage)) == 1
            assert made.supply.children == 2
        assert ready.killed
        assert not made.children[1].killed
        assert made.supply.warm.taken == 1


@in_virtual_time
async def test_it_knows_all_but_the_session() -> None:
    agent = variant(environment={"COLOUR": "red", "SESSION_ID": "mine"}, secrets={"KEY": "k-123456"})
    async with warm(agent) as made, made.call(environment=agent.environment, secrets=agent.secrets) as call:
        ready = made.children[0]
        (start,) = ready.of(ipc.SessionStart)
        ahead = dict(ready.spec.environment)
        known = {"COLOUR": "red", "KEY": "k-123456", "PROJECT_ID": "p", "IDLE_TIMEOUT_SEC": "0"}
        assert known.items() <= ahead.items()
        # What a session adds; everything else is there from the beginning, as in a fresh child.
        assert set(start.env) - set(ahead) == {"SESSION_ID", "AGENT_CUSTOMER_CONTEXT"}
        assert {name: start.env[name] for name in ahead} == ahead
        assert ready.of(ipc.LoadAgent)[0].env == ahead
        assert call.errors() == []


OTHERS = [
    {"build_id": "b2"},
    {"bundle_checksum": "c2"},
    {"environment": {"COLOUR": "blue"}},
    {"secrets": {"KEY": "k-123456"}},
    {"settings": SessionSettings(idle_timeout_enabled=False, error_message="Oh no.")},
    {"agent_crash_policy": AgentCrashPolicy.RESTART_CHILD},
    {"client_speak_enabled": True},
    {"project_id": "p2"},
]


@pytest.mark.parametrize("difference", OTHERS, ids=lambda difference: next(iter(difference)))
@in_virtual_time
async def test_nothing_but_the_very_same_deployment_gets_it(difference: dict[str, Any]) -> None:
    async with warm(variant(**difference)) as made, made.call():
        assert [child.of(ipc.SessionStart) != [] for child in made.children] == [False, True]
        assert made.waiting == 1


@in_virtual_time
async def test_the_order_of_variables_makes_no_other_deployment() -> None:
    async with (
        warm(variant(environment={"A": "1", "B": "2"})) as made,
        made.call(environment={"B": "2", "A": "1"}),
    ):
        assert made.children[0].of(ipc.SessionStart)


@in_virtual_time
async def test_what_is_no_longer_wanted_is_stopped_and_what_stays_is_left_alone() -> None:
    other = variant(build_id="b2")
    async with warm(AGENT, other) as made:
        assert made.waiting == 2
        await made.keep(other)
        assert [child.killed for child in made.children] == [True, False]
        await made.keep(other, AGENT)
        assert [child.killed for child in made.children] == [True, False, False]
        await made.keep()
        assert made.waiting == 0
        assert made.supply.children == 0


@in_virtual_time
async def test_a_session_keeps_the_child_that_it_took_whatever_is_wanted_later() -> None:
    async with warm(AGENT) as made, made.call() as call:
        await made.keep()
        await asyncio.sleep(60)
        assert [child.killed for child in made.children] == [False, True]
        assert call.errors() == []


@in_virtual_time
async def test_a_bundle_that_cannot_be_loaded_is_tried_less_and_less_often() -> None:
    sandbox = ScriptedSandbox(loads=False)
    async with warm(AGENT, sandbox=sandbox) as made:
        await asyncio.sleep(3600)
        # 1 + 2 + 4 + … + 256, then every 300 seconds: not one a second.
        assert 15 < len(made.children) < 25
        assert made.waiting == 0
        assert made.supply.warm.lost == len(made.children)
        # The session that comes hears it as it always did.
        async with made.call() as call:
            await call.connect()
            await asyncio.sleep(1)
            assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
            assert "ImportError: no" in str(call.told("session_error"))
        sandbox.loads = True
        await asyncio.sleep(301)
        assert made.waiting == 1


@in_virtual_time
async def test_one_that_dies_is_replaced_and_nobody_hears_of_it() -> None:
    async with warm(AGENT) as made, made.call("s1") as call:
        await asyncio.sleep(100)
        made.children[1].die()
        await asyncio.sleep(0.5)
        assert made.waiting == 0
        await asyncio.sleep(1)
        assert made.waiting == 1
        assert call.errors() == []
        assert made.supply.warm.lost == 1


@pytest.mark.parametrize("fault", ["dead", "hung"])
@in_virtual_time
async def test_a_session_that_comes_at_the_very_moment_of_its_end_gets_another(fault: str) -> None:
    async with warm(AGENT) as made:
        (ready,) = made.children
        if fault == "dead":
            ready.die()
        else:
            ready.say = lambda message: None  # type: ignore[method-assign]
        async with made.call() as call:
            await asyncio.sleep(1)
            assert ready.of(ipc.SessionStart) == []
            assert sum(len(child.of(ipc.SessionStart)) for child in made.children) == 1
            await asyncio.sleep(60)
            assert ready.killed
            assert call.errors() == []
            assert made.waiting == 1
        assert await call.stored() == ([], "client_close_signal")


@in_virtual_time
async def test_a_failure_before_there_is_a_session_is_no_sessions_failure() -> None:
    async with warm(AGENT) as made:
        (ready,) = made.children
        ready.say(ipc.AgentError(session_id=None, hook="background", message="ValueError: x", stack="…"))
        async with made.call() as call:
            await asyncio.sleep(5)
            assert ready.killed
            assert call.errors() == []


@in_virtual_time
async def test_from_then_on_its_failures_are_the_sessions_as_ever() -> None:
    async with warm(AGENT) as made, made.call() as call:
        made.children[0].die()
        await asyncio.sleep(1)
        assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
        assert made.waiting == 1


@in_virtual_time
async def test_where_the_agent_is_restarted_a_warm_child_takes_over() -> None:
    policy = {"agent_crash_policy": AgentCrashPolicy.RESTART_CHILD}
    async with warm(variant(**policy)) as made, made.call(**policy) as call:
        made.children[0].die()
        await asyncio.sleep(1)
        assert call.errors() == [("AGENT_CHILD_CRASHED", True)]
        assert len(made.children[1].of(ipc.SessionStart)) == 1
        assert made.waiting == 1
        assert made.supply.warm.taken == 2


@in_virtual_time
async def test_none_is_kept_for_ever() -> None:
    async with warm(AGENT, warm=WarmRules(seconds=1800)) as made:
        await asyncio.sleep(1799)
        assert len(made.children) == 1
        await asyncio.sleep(2)
        assert [child.killed for child in made.children] == [True, False]
        assert made.waiting == 1
        assert made.supply.warm.lost == 0


@in_virtual_time
async def test_many_sessions_at_once_share_no_warm_child() -> None:
    async with warm(AGENT, warm=WarmRules(per_agent=3)) as made, contextlib.AsyncExitStack() as stack:
        assert made.waiting == 3
        calls = [made.call(f"s{number}") for number in range(8)]
        await asyncio.gather(*(stack.enter_async_context(call) for call in calls))
        starts = [[start.session_id for start in child.of(ipc.SessionStart)] for child in made.children]
        given = sorted(start for start in starts if start)
        assert given == [[f"s{number}"] for number in range(8)]
        assert made.waiting == 3
        assert [call.errors() for call in calls] == [[]] * 8


@in_virtual_time
async def test_all_together_are_no_more_than_allowed_and_every_agent_comes_before_a_second_one() -> None:
    agents = [variant(build_id=f"b{number}") for number in range(5)]
    async with warm(*agents[:3], warm=WarmRules(children=4, per_agent=2)) as made:
        builds = [child.spec.environment["BUILD_ID"] for child in made.children]
        assert builds == ["b0", "b1", "b2", "b0"]
        await made.keep(*agents)
        alive = [child.spec.environment["BUILD_ID"] for child in made.children if not child.killed]
        assert sorted(alive) == ["b0", "b1", "b2", "b3"]
        assert made.waiting == 4


@in_virtual_time
async def test_where_there_is_no_room_none_is_started() -> None:
    room = False
    async with warm(AGENT, has_room=lambda: room) as made:
        await asyncio.sleep(60)
        assert made.children == []
        room = True
        await asyncio.sleep(6)
        assert made.waiting == 1
        assert made.supply.warm.lost == 0


@in_virtual_time
async def test_an_agent_whose_sessions_share_a_child_is_not_warmed() -> None:
    async with warm(variant(shared_child_per_session=True)) as made:
        assert made.children == []


class _Failing(ScriptedSandbox):
    """Starts nothing until `works`."""

    works = False

    async def start(self, spec: ChildSpec) -> ChildProcess:
        if not self.works:
            raise SandboxUnavailable("no fork today")
        return await super().start(spec)


@in_virtual_time
async def test_a_sandbox_that_cannot_is_asked_again_later() -> None:
    sandbox = _Failing()
    async with warm(AGENT, sandbox=sandbox) as made:
        await asyncio.sleep(30)
        assert 3 < made.supply.warm.lost < 7
        sandbox.works = True
        await asyncio.sleep(32)
        assert made.waiting == 1


@in_virtual_time
async def test_one_that_is_just_being_started_is_not_left_behind() -> None:
    sandbox = ScriptedSandbox()
    sandbox.seconds = 2.0
    async with warm(AGENT, sandbox=sandbox) as made:
        await asyncio.sleep(1)
        await made.keep()
        await asyncio.sleep(10)
        assert made.supply.children == 0
        await made.keep(AGENT)
        await asyncio.sleep(10)
        assert made.waiting == 1


@in_virtual_time
async def test_one_that_is_still_loading_is_not_left_behind() -> None:
    class Slow(ScriptedChild):
        async def send(self, frame: bytes) -> None:
            """Loads and loads."""

    class SlowSandbox(ScriptedSandbox):
        async def start(self, spec: ChildSpec) -> ChildProcess:
            self.children.append(Slow(spec, 1000, self.hooks, loads=True))
            return self.children[-1]

    async with warm(AGENT, sandbox=SlowSandbox()) as made:
        await asyncio.sleep(1)
        assert (made.supply.children, made.waiting) == (1, 0)
        await made.keep()
        assert made.supply.children == 0
        await made.keep(AGENT)
        await asyncio.sleep(9)
        assert [child.killed for child in made.children] == [True, False]
        await asyncio.sleep(1.5)
        assert [child.killed for child in made.children] == [True, True]  # it had its ten seconds


@in_virtual_time
async def test_what_it_wrote_before_comes_first_in_the_sessions_log() -> None:
    many = MAX_KEPT_LINES + 50

    class Chatty(ScriptedChild):
        async def output(self) -> AsyncIterator[OutputLine]:
            for number in range(many):
                yield OutputLine("stdout", f"line {number} token=hunter2")
            await asyncio.sleep(10)
            yield OutputLine("stderr", "later")

    class ChattySandbox(ScriptedSandbox):
        async def start(self, spec: ChildSpec) -> ChildProcess:
            child = Chatty(spec, 1000 + len(self.children), self.hooks, loads=True)
            self.children.append(child)
            return child

    events: list[AgentEvent] = []
    async with warm(AGENT, sandbox=ChattySandbox()) as made:
        agent = made.supply.agent(
            "s",
            AGENT,
            bundle_dir=Path("bundle"),
            environment={},
            on_event=events.append,
            redact=lambda text: text,
        )
        await agent.start()
        *lines, loaded = events
        assert isinstance(loaded, ipc.AgentLoaded)
        assert all(isinstance(line, LogLine) for line in lines)
        words = [line.message for line in lines if isinstance(line, LogLine)]
        assert words[0] == "50 lines that the agent wrote before this session were left out"
        assert len(words) == MAX_KEPT_LINES + 1
        assert words[1].startswith("line 50 ")
        assert words[-1].startswith(f"line {many - 1} ")
        assert "hunter2" not in "".join(words)
        await asyncio.sleep(11)
        assert [event.message for event in events if isinstance(event, LogLine)][-1] == "later"
        await agent.stop(0)
