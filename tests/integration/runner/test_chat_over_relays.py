"""Chat sessions over real relays: a real runner, real agents' processes, and a gateways' end that stores."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.adapters.relay.redis import RedisRelayHub, RedisRunnerLink
from voicethere.core.clock import SystemClock
from voicethere.core.ports import RelayHub, RunnerLink
from voicethere.roles.runner.runner import Runner
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.testing.queue import InMemoryErrorQueue
from voicethere.testing.redis_server import redis_server
from voicethere.testing.scripted_gateway import ScriptedGateway
from voicethere.testing.speech import ScriptedSpeech
from voicethere.testing.subprocess_sandbox import SubprocessSandbox
from voicethere.wire.queue import ErrorItem, SessionEndedItem
from voicethere.wire.relay import (
    AssignSession,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
    DeployedAgent,
    RunnerHello,
)
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings

SOON = 20.0
BUNDLE = b"""
import os
from voicethere.agent import define_agent, disconnect_client, parse_chat_text, send_to_client, speak

async def words():
    for word in ("One, ", "two, ", "three."):
        yield word

async def broken():
    yield "I was about to "
    raise ValueError("the model hung up")

def on_session_start(ctx):
    speak(ctx.session_id, "Welcome.")

def on_data_channel_message(ctx):
    match parse_chat_text(ctx.message):
        case "count":
            speak(ctx.session_id, words())
        case "break":
            speak(ctx.session_id, broken())
        case "raise":
            raise ValueError("no")
        case "pid":
            send_to_client(ctx.session_id, {"pid": os.getpid()})
        case "count and bye":
            speak(ctx.session_id, words())
            speak(ctx.session_id, "Bye.")
            disconnect_client(ctx.session_id)
        case "bye":
            speak(ctx.session_id, "Bye.")
            disconnect_client(ctx.session_id)
        case text:
            send_to_client(ctx.session_id, {"type": "echo", "text": text})

define_agent(on_session_start=on_session_start, on_data_channel_message=on_data_channel_message)
"""
CHECKSUM = hashlib.sha256(BUNDLE).hexdigest()
AGENT = DeployedAgent(
    project_id="p", build_id="b", bundle_checksum=CHECKSUM, mode=Mode.DATA, settings=SessionSettings()
)


class Bench:
    """A runner, and the gateways' end of its relay. `new_hub` makes another hub on the same relay."""

    def __init__(
        self, directory: Path, new_hub: Callable[[], Awaitable[RelayHub]], hub: RelayHub, link: RunnerLink
    ) -> None:
        self.directory = directory
        self.new_hub = new_hub
        self.queue = InMemoryErrorQueue()
        self.gateway = ScriptedGateway(hub)
        self.reading = asyncio.create_task(self.gateway.run())
        self._link = link
        self._sandbox = SubprocessSandbox()

    async def open(self, hello: list[Callable[[], RunnerHello]]) -> None:
        store = DirectoryBundleStore(self.directory / "bundles")
        await store.put(CHECKSUM, BUNDLE)
        self.runner = Runner(
            settings=RunnerSettings(runner_id="r"),
            link=self._link,
            sandbox=self._sandbox,
            speech=ScriptedSpeech(),
            queue=self.queue,
            bundles=UnpackedBundles(store, self.directory / "unpacked"),
            clock=SystemClock(),
        )
        hello[:] = [self.runner.hello]
        self._running = asyncio.create_task(self.runner.run())
        await self.gateway.until(lambda: any(isinstance(heard, RunnerHello) for heard in self.gateway.heard))

    async def begin(self, agent: DeployedAgent = AGENT) -> None:
        """The chat session `s`, in which the agent has said its welcome."""
        await self.gateway.hub.send(
            "r", AssignSession(session_id="s", room_id="room-s", agent=agent, chat=True)
        )
        await self.gateway.until(lambda: len(self.gateway.said("s")) == 1)
        assert self.gateway.said("s") == [ChatMessage(speech_id="s-1", text="Welcome.")]

    def passed(self) -> list[object]:
        """What the agent sent."""
        return [msgspec.json.decode(body.payload) for body in self.gateway.of("s", ChatPassed)]

    async def passes(self, prompt: str) -> object:
        """What the agent sends next, once it was prompted."""
        before = len(self.passed())
        await self.gateway.prompt("s", prompt)
        await self.gateway.until(lambda: len(self.passed()) > before)
        return self.passed()[before]

    async def closes(self) -> ChatClosed:
        await self.gateway.until(lambda: bool(self.gateway.of("s", ChatClosed)))
        return self.gateway.of("s", ChatClosed)[0]

    async def ended(self) -> tuple[list[tuple[str, str]], str | None]:
        """The ids and codes of the rows, and the reason of the end, once that is queued."""
        rows: list[tuple[str, str]] = []
        async with asyncio.timeout(SOON):
            while True:
                for delivery in await self.queue.receive(limit=10, wait_seconds=1):
                    match delivery.item:
                        case ErrorItem(record=record):
                            rows.append((record.id, record.code.value))
                        case SessionEndedItem(end_reason=reason):
                            return rows, reason

    async def another_hub(self) -> None:
        """The gateways' process is gone; another one has taken its place."""
        await self.gateway.hub.aclose()
        await self.reading
        self.gateway.hub = await self.new_hub()
        self.reading = asyncio.create_task(self.gateway.run())

    async def aclose(self) -> None:
        self.runner.stop()
        await asyncio.wait_for(self._running, SOON)
        await self._link.aclose()
        await self.gateway.hub.aclose()
        await asyncio.wait_for(self.reading, SOON)
        await self._sandbox.aclose()


@contextlib.asynccontextmanager
async def opened(kind: str, directory: Path) -> AsyncIterator[Bench]:
    said: list[Callable[[], RunnerHello]] = [lambda: RunnerHello(runner_id="r", capacity=0)]

    def hello() -> RunnerHello:
        return said[0]()

    async with contextlib.AsyncExitStack() as stack:
        if kind == "redis":
            url = (await stack.enter_async_context(redis_server())).url

            async def new_hub() -> RelayHub:
                hub = await RedisRelayHub.start(url, prefix="chat")
                await asyncio.wait_for(hub.wait_linked(), SOON)
                return hub

            hub = await new_hub()
            link: RunnerLink = await RedisRunnerLink.start(url, prefix="chat", runner_id="r", hello=hello)
        else:

            async def new_hub() -> RelayHub:
                return await EmbeddedRelayHub.start(directory / "relay.sock")

            hub = await new_hub()
            link = await EmbeddedRunnerLink.start(directory / "relay.sock", hello=hello)
        bench = Bench(directory, new_hub, hub, link)
        await bench.open(said)
        stack.push_async_callback(bench.aclose)
        yield bench


@pytest.fixture
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with opened(getattr(request, "param", "embedded"), tmp_path) as bench:
        yield bench


on_both_relays = pytest.mark.parametrize("bench", ["embedded", "redis"], indirect=True)


@pytest.mark.states(
    "sem-chat/gateway/on-session-start",
    "sem-chat/gateway/prompt",
    "sem-chat/gateway/speak",
    "sem-chat/gateway/speak-stream",
)
@on_both_relays
async def test_prompts_replies_and_a_stream(bench: Bench) -> None:
    await bench.begin()
    assert await bench.passes("hello") == {"type": "echo", "text": "hello"}
    await bench.gateway.prompt("s", "count")
    await bench.gateway.until(lambda: bool(bench.gateway.of("s", ChatStreamEnd)))
    (start,) = bench.gateway.of("s", ChatStreamStart)
    parts = bench.gateway.of("s", ChatStreamText)
    (end,) = bench.gateway.of("s", ChatStreamEnd)
    assert "".join(part.delta for part in parts) == parts[-1].cumulative == "One, two, three."
    assert end == ChatStreamEnd(speech_id=start.speech_id, text="One, two, three.", complete=True)
    assert {part.speech_id for part in parts} == {start.speech_id} != {"s-1"}
    await bench.gateway.prompt("s", "bye")
    assert (await bench.closes()).end_reason.value == "agent_disconnected"
    assert bench.gateway.said("s")[-2] == ChatMessage(speech_id="s-3", text="Bye.")
    assert await bench.ended() == ([], "agent_disconnected")
    assert bench.gateway.prompts_taken("s") == 3


async def test_last_words_behind_a_stream_are_said_and_what_nobody_began_with_is_for_the_next_session(
    bench: Bench,
) -> None:
    await bench.begin()
    for prompt in ("count and bye", "still there?"):
        await bench.gateway.prompt("s", prompt)
    assert (await bench.closes()).end_reason.value == "agent_disconnected"
    assert bench.gateway.said("s")[-3:-1] == [
        ChatStreamEnd(speech_id="s-2", text="One, two, three.", complete=True),
        ChatMessage(speech_id="s-3", text="Bye."),
    ]
    assert await bench.ended() == ([], "agent_disconnected")
    assert (bench.passed(), bench.gateway.prompts_taken("s")) == ([], 1)


@pytest.mark.states(
    "sem-chat/gateway/same-error-flow", "sem-chat/gateway/error-id", "sem-chat/text/end-before-error"
)
@pytest.mark.parametrize("prompt", ["raise", "break"])
async def test_a_handler_that_raises_is_told_under_the_id_of_its_row(bench: Bench, prompt: str) -> None:
    await bench.begin()
    await bench.gateway.prompt("s", prompt)
    assert (await bench.closes()).end_reason.value == "agent_error"
    (failure,) = bench.gateway.of("s", ChatFailure)
    rows, reason = await bench.ended()
    assert rows == [(failure.error_id, "AGENT_HANDLER_FAILED")]
    assert reason == "agent_error"
    assert (failure.envelope.code, failure.envelope.recoverable) == ("AGENT_HANDLER_FAILED", False)
    kinds = [type(body) for body in bench.gateway.said("s")]
    if prompt == "break":
        (end,) = bench.gateway.of("s", ChatStreamEnd)
        assert (end.text, end.complete) == ("I was about to ", False)
        assert kinds.index(ChatStreamEnd) < kinds.index(ChatFailure)
    assert kinds[-2:] == [ChatFailure, ChatClosed]


async def test_a_killed_child_ends_the_session_with_its_error(bench: Bench) -> None:
    await bench.begin()
    told = await bench.passes("pid")
    assert isinstance(told, dict)
    os.kill(told["pid"], signal.SIGKILL)
    await bench.closes()
    (failure,) = bench.gateway.of("s", ChatFailure)
    assert await bench.ended() == ([(failure.error_id, "AGENT_CHILD_CRASHED")], "agent_error")


async def test_the_conversation_goes_on_with_another_child_where_the_project_wants_that(bench: Bench) -> None:
    await bench.begin(msgspec.structs.replace(AGENT, agent_crash_policy=AgentCrashPolicy.RESTART_CHILD))
    told = await bench.passes("pid")
    assert isinstance(told, dict)
    os.kill(told["pid"], signal.SIGKILL)
    await bench.gateway.until(lambda: len(bench.gateway.of("s", ChatMessage)) == 2)
    assert bench.gateway.of("s", ChatMessage)[1] == ChatMessage(speech_id="s-2", text="Welcome.")
    assert await bench.passes("still there?") == {"type": "echo", "text": "still there?"}
    (failure,) = bench.gateway.of("s", ChatFailure)
    assert failure.envelope.recoverable
    assert not bench.gateway.of("s", ChatClosed)


@pytest.mark.states("sem-chat/gateway/restart")
@on_both_relays
async def test_a_gateway_that_is_started_again_misses_nothing(bench: Bench) -> None:
    await bench.begin()
    bench.gateway.away = True
    for text in ("one", "two"):
        await bench.gateway.prompt("s", text)
    await bench.gateway.until(lambda: bench.gateway.saying["s", 3] > 0)
    await bench.another_hub()
    bench.gateway.away = False
    await bench.gateway.until(lambda: len(bench.passed()) == 2)
    await bench.gateway.say_prompts_again("s")  # of which it never heard that they were taken
    assert await bench.passes("three") == {"type": "echo", "text": "three"}
    assert [told["text"] for told in bench.passed() if isinstance(told, dict)] == ["one", "two", "three"]
    assert bench.gateway.prompts_taken("s") == 3
    assert bench.runner.hosted() == ["s"]


@pytest.mark.parametrize("bench", ["redis"], indirect=True)
async def test_two_gateways_store_everything_once(bench: Bench) -> None:
    other = ScriptedGateway(await bench.new_hub(), beside=bench.gateway)
    reading = asyncio.create_task(other.run())
    await bench.begin()
    for number in range(20):
        await bench.gateway.prompt("s", str(number))
    await bench.gateway.until(lambda: len(bench.passed()) == 20)
    assert [told["text"] for told in bench.passed() if isinstance(told, dict)] == [
        str(number) for number in range(20)
    ]
    await other.until(lambda: other.saying["s", 21] > 0)
    await other.hub.aclose()
    await asyncio.wait_for(reading, SOON)
