"""What every relay must do, asked of the embedded one, of the one on Redis, and of the in-memory fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.adapters.relay.framing import MAX_FRAME_BYTES
from voicethere.adapters.relay.redis import RedisRelayHub, RedisRunnerLink
from voicethere.core.ports import RelayHub, RunnerAway, RunnerLink
from voicethere.testing.redis_server import redis_server
from voicethere.testing.relay import InMemoryRelay, InMemoryRunnerLink
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    CapacityNow,
    ChatFrames,
    ChatOutput,
    ChatPrompt,
    ChatPromptTaken,
    ChatStreamStart,
    ChatTaken,
    DeployedAgent,
    EndSession,
    Heartbeat,
    KeepWarm,
    PeerJoinedRoom,
    RunnerHello,
    ServiceNotice,
    SessionAccepted,
    SessionMoved,
    SessionOver,
    SessionWanted,
    SignalToPeer,
    ToRunner,
    ToService,
)
from voicethere.wire.session_api import IceServer, Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings

PATIENCE = 30.0
"""For what takes milliseconds where nobody else wants the processor."""

MakeHub = Callable[[], Awaitable[RelayHub]]
MakeLink = Callable[[str, Callable[[], RunnerHello]], Awaitable[RunnerLink]]


class Service:
    """A hub, and what comes out of it."""

    def __init__(self, hub: RelayHub) -> None:
        self.hub = hub
        self.events: asyncio.Queue[tuple[str, ToService | None]] = asyncio.Queue()
        self.told: asyncio.Queue[ServiceNotice] = asyncio.Queue()
        self._pumps = [asyncio.create_task(self._read())]

    async def _read(self) -> None:
        async for event in self.hub.messages():
            self.events.put_nowait(event)

    async def _read_notices(self) -> None:
        async for notice in self.hub.notices():
            self.told.put_nowait(notice)

    async def event(self) -> tuple[str, ToService | None]:
        return await asyncio.wait_for(self.events.get(), PATIENCE)

    async def notice(self) -> ServiceNotice:
        if len(self._pumps) == 1:
            self._pumps.append(asyncio.create_task(self._read_notices()))
        return await asyncio.wait_for(self.told.get(), PATIENCE)

    async def aclose(self) -> None:
        await self.hub.aclose()
        await asyncio.wait_for(asyncio.gather(*self._pumps), PATIENCE)


class World(Service):
    """One service, perhaps others, any number of runners' links, and what comes out of all."""

    def __init__(self, hub: RelayHub, make_hub: MakeHub | None, make_link: MakeLink) -> None:
        super().__init__(hub)
        self._make_hub = make_hub
        self._make_link = make_link
        self._links: list[RunnerLink] = []
        self._others: list[Service] = []

    async def link(self, runner_id: str, sessions: list[str] | None = None) -> RunnerLink:
        hosted = [] if sessions is None else sessions
        link = await self._make_link(
            runner_id, lambda: RunnerHello(runner_id=runner_id, capacity=3, sessions=list(hosted))
        )
        self._links.append(link)
        return link

    async def another_service(self) -> Service:
        if self._make_hub is None:
            pytest.skip("one service is all that this relay has room for")
        service = Service(await self._make_hub())
        self._others.append(service)
        return service

    async def cut(self, runner_id: str, link: RunnerLink) -> None:
        self.hub.drop(runner_id)
        if isinstance(link, InMemoryRunnerLink):
            link.relink()

    async def aclose(self) -> None:
        for link in self._links:
            await link.aclose()
        for other in self._others:
            await other.aclose()
        await super().aclose()


async def _embedded_world(path: Path) -> World:
    async def link(_runner_id: str, hello: Callable[[], RunnerHello]) -> RunnerLink:
        return await EmbeddedRunnerLink.start(path, hello=hello)

    return World(await EmbeddedRelayHub.start(path), None, link)


async def _redis_world(url: str, prefix: str) -> World:
    async def hub() -> RelayHub:
        made = await RedisRelayHub.start(url, prefix=prefix)
        await asyncio.wait_for(made.wait_linked(), PATIENCE)
        return made

    async def link(runner_id: str, hello: Callable[[], RunnerHello]) -> RunnerLink:
        return await RedisRunnerLink.start(url, prefix=prefix, runner_id=runner_id, hello=hello)

    return World(await hub(), hub, link)


async def _memory_world() -> World:
    relay = InMemoryRelay()

    async def hub() -> RelayHub:
        return relay.new_hub()

    async def link(_runner_id: str, hello: Callable[[], RunnerHello]) -> RunnerLink:
        return relay.new_link(hello)

    return World(await hub(), hub, link)


@pytest.fixture(params=["embedded", "redis", "memory"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        if request.param == "embedded":
            world = await _embedded_world(tmp_path / "relay.sock")
        elif request.param == "redis":
            server = await stack.enter_async_context(redis_server())
            world = await _redis_world(server.url, "a-prefix")
        else:
            world = await _memory_world()
        stack.push_async_callback(world.aclose)
        yield world


async def _next(messages: AsyncIterator[ToRunner]) -> ToRunner:
    return await asyncio.wait_for(anext(messages), PATIENCE)


def _assignment() -> AssignSession:
    return AssignSession(
        session_id="s-1",
        room_id="room-s-1",
        agent=DeployedAgent(
            project_id="p",
            build_id="b",
            bundle_checksum="c" * 64,
            mode=Mode.VOICE_DATA,
            settings=SessionSettings(error_message="Pech gehabt ☂"),
            environment={"A": "1"},
            secrets={"KEY": "s3cret"},
            client_speak_enabled=True,
            agent_crash_policy=AgentCrashPolicy.RESTART_CHILD,
            shared_child_per_session=True,
        ),
        ice_servers=[IceServer(urls=["stun:x"], username="u", credential="c")],
        customer_context={"deep": [1, {"two": None}]},
    )


async def test_a_runner_says_hello_first(world: World) -> None:
    await world.link("r-1", ["s-1", "s-2"])
    assert await world.event() == ("r-1", RunnerHello(runner_id="r-1", capacity=3, sessions=["s-1", "s-2"]))


async def test_messages_arrive_whole_and_in_order_both_ways(world: World) -> None:
    link = await world.link("r-1")
    await world.event()
    sent: list[ToRunner] = [_assignment()]
    sent += [PeerJoinedRoom(session_id="s-1", peer_id=f"client-{number}") for number in range(300)]
    messages = link.messages()
    for message in sent:
        await world.hub.send("r-1", message)
    assert [await _next(messages) for _ in sent] == sent

    answers: list[ToService] = [SessionAccepted(session_id="s-1")]
    answers += [SignalToPeer(session_id="s-1", peer_id="c", message=f"{n} ☂") for n in range(300)]
    for answer in answers:
        await link.send(answer)
    assert [await world.event() for _ in answers] == [("r-1", answer) for answer in answers]


async def test_several_runners_are_told_apart(world: World) -> None:
    first, second = await world.link("r-1"), await world.link("r-2")
    assert {(await world.event())[0], (await world.event())[0]} == {"r-1", "r-2"}
    await first.send(Heartbeat(active=1))
    assert await world.event() == ("r-1", Heartbeat(active=1))
    await second.send(Heartbeat(active=2))
    assert await world.event() == ("r-2", Heartbeat(active=2))
    await world.hub.send("r-2", CancelSession(session_id="s"))
    assert await _next(second.messages()) == CancelSession(session_id="s")


async def test_an_unknown_runner_is_away(world: World) -> None:
    with pytest.raises(RunnerAway, match="nobody"):
        await world.hub.send("nobody", CancelSession(session_id="s"))


async def test_a_closed_link_is_reported_and_its_runner_away(world: World) -> None:
    link = await world.link("r-1")
    await world.event()
    await link.aclose()
    assert await world.event() == ("r-1", None)
    with pytest.raises(RunnerAway):
        await world.hub.send("r-1", CancelSession(session_id="s"))


async def test_what_was_sent_before_a_close_arrives(world: World) -> None:
    link = await world.link("r-1")
    await world.event()
    for number in range(50):
        await link.send(Heartbeat(active=number))
    await link.aclose()
    assert [await world.event() for _ in range(51)] == [
        *(("r-1", Heartbeat(active=number)) for number in range(50)),
        ("r-1", None),
    ]


async def test_a_lost_link_comes_back_with_what_the_runner_hosts_by_then(world: World) -> None:
    hosted = ["s-1"]
    link = await world.link("r-1", hosted)
    await world.event()
    hosted.append("s-2")
    await world.cut("r-1", link)
    assert await world.event() == ("r-1", None)
    assert await world.event() == ("r-1", RunnerHello(runner_id="r-1", capacity=3, sessions=["s-1", "s-2"]))
    await world.hub.send("r-1", CancelSession(session_id="s-1"))
    assert await _next(link.messages()) == CancelSession(session_id="s-1")
    await link.send(Heartbeat(active=2))
    assert await world.event() == ("r-1", Heartbeat(active=2))


async def test_the_reader_of_a_closed_end_is_done(world: World) -> None:
    link = await world.link("r-1")
    await world.event()
    await link.aclose()
    assert [message async for message in link.messages()] == []


async def test_a_roll_call_is_answered_with_what_is_true_by_then(world: World) -> None:
    hosted: list[str] = []
    await world.link("r-1", hosted)
    await world.link("r-2", ["s-9"])
    assert {(await world.event())[0], (await world.event())[0]} == {"r-1", "r-2"}
    hosted.append("s-1")
    await world.hub.call_roll()
    answers = dict([await world.event(), await world.event()])
    assert answers == {
        "r-1": RunnerHello(runner_id="r-1", capacity=3, sessions=["s-1"]),
        "r-2": RunnerHello(runner_id="r-2", capacity=3, sessions=["s-9"]),
    }


async def test_nobody_answers_an_empty_roll(world: World) -> None:
    await world.hub.call_roll()
    # What is said later is heard later: by then the roll was called, and nobody was there.
    await world.hub.publish(SessionWanted(session_id="behind the roll call"))
    await world.notice()
    link = await world.link("r-1")
    assert isinstance((await world.event())[1], RunnerHello)
    await link.send(Heartbeat(active=0))
    assert await world.event() == ("r-1", Heartbeat(active=0))  # and no second hello


async def test_every_order_arrives_as_it_was_sent(world: World) -> None:
    link = await world.link("r-1")
    await world.event()
    orders: list[ToRunner] = [
        KeepWarm(agents=[_assignment().agent]),
        EndSession(session_id="s", end_reason=EndReason.RUNNER_SHUTDOWN),
    ]
    for order in orders:
        await world.hub.send("r-1", order)
    messages = link.messages()
    assert [await _next(messages) for _ in orders] == orders


async def test_a_service_hears_its_own_notices_in_order(world: World) -> None:
    notices: list[ServiceNotice] = [
        SessionWanted(session_id="s-1"),
        SessionMoved(session_id="s-1", settled=False),
        SessionOver(session_id="s-1"),
        CapacityNow(runners=1, capacity=3, free=2, waiting=0, mean_session_seconds=1.5),
        ChatFrames(project_id="p", conversation_id="c", first_seq=7, frames=['{"sem":true}', "{}"]),
    ]
    for notice in notices:
        await world.hub.publish(notice)
    assert [await world.notice() for _ in notices] == notices


async def test_a_chat_goes_both_ways(world: World) -> None:
    link = await world.link("r-1")
    await world.event()
    prompts: list[ToRunner] = [
        ChatPrompt(session_id="s-1", number=1, text="hello"),
        ChatTaken(session_id="s-1", number=7),
    ]
    for prompt in prompts:
        await world.hub.send("r-1", prompt)
    messages = link.messages()
    assert [await _next(messages) for _ in prompts] == prompts
    answers: list[ToService] = [
        ChatPromptTaken(session_id="s-1", number=1),
        ChatOutput(session_id="s-1", number=1, body=ChatStreamStart(speech_id="s-1-1")),
        ChatOutput(session_id="s-1", number=1, body=ChatStreamStart(speech_id="s-1-1"), again=True),
    ]
    for answer in answers:
        await link.send(answer)
    assert [await world.event() for _ in answers] == [("r-1", answer) for answer in answers]


async def test_a_service_that_does_not_read_notices_still_hears_runners(world: World) -> None:
    for number in range(1500):  # more than anybody keeps
        await world.hub.publish(SessionWanted(session_id=str(number)))
    await world.link("r-1")
    assert (await world.event())[0] == "r-1"


async def test_what_is_too_large_is_refused_by_its_sender(
    world: World, request: pytest.FixtureRequest
) -> None:
    if "memory" in request.node.callspec.id:
        pytest.skip("memory has no frames")
    link = await world.link("r-1")
    await world.event()
    too_large = "x" * (MAX_FRAME_BYTES + 1)
    with pytest.raises(ValueError, match="at most"):
        await world.hub.send("r-1", CancelSession(session_id=too_large))
    with pytest.raises(ValueError, match="at most"):
        await world.hub.publish(SessionWanted(session_id=too_large))
    with pytest.raises(ValueError, match="at most"):
        await link.send(SessionAccepted(session_id=too_large))
    await link.send(Heartbeat(active=0))
    assert await world.event() == ("r-1", Heartbeat(active=0))


async def test_two_services_hear_the_same_runner_and_both_reach_it(world: World) -> None:
    other = await world.another_service()
    link = await world.link("r-1", ["s-1"])
    hello = ("r-1", RunnerHello(runner_id="r-1", capacity=3, sessions=["s-1"]))
    assert (await world.event(), await other.event()) == (hello, hello)
    await link.send(Heartbeat(active=1))
    beat = ("r-1", Heartbeat(active=1))
    assert (await world.event(), await other.event()) == (beat, beat)
    messages = link.messages()
    await world.hub.send("r-1", CancelSession(session_id="of one"))
    assert await _next(messages) == CancelSession(session_id="of one")
    await other.hub.send("r-1", CancelSession(session_id="of the other"))
    assert await _next(messages) == CancelSession(session_id="of the other")
    await link.aclose()
    assert (await world.event(), await other.event()) == (("r-1", None), ("r-1", None))


async def test_two_services_hear_each_other(world: World) -> None:
    other = await world.another_service()
    await world.hub.publish(SessionWanted(session_id="a"))
    await other.hub.publish(SessionWanted(session_id="b"))
    for service in (world, other):
        told = {await service.notice(), await service.notice()}
        assert told == {SessionWanted(session_id="a"), SessionWanted(session_id="b")}


async def test_a_service_that_comes_later_hears_who_is_there(world: World) -> None:
    link = await world.link("r-1", ["s-1"])
    await world.event()
    other = await world.another_service()
    assert await other.event() == ("r-1", RunnerHello(runner_id="r-1", capacity=3, sessions=["s-1"]))
    await other.hub.send("r-1", CancelSession(session_id="s-1"))
    assert await _next(link.messages()) == CancelSession(session_id="s-1")


async def test_one_service_dropping_a_runner_takes_it_from_nobody_else(world: World) -> None:
    other = await world.another_service()
    link = await world.link("r-1")
    await world.event()
    await other.event()
    world.hub.drop("r-1")
    assert await world.event() == ("r-1", None)
    await other.hub.send("r-1", CancelSession(session_id="s"))
    assert await _next(link.messages()) == CancelSession(session_id="s")
    await link.send(Heartbeat(active=0))
    while (event := await other.event()) != ("r-1", Heartbeat(active=0)):
        assert isinstance(event[1], RunnerHello)  # never that it is gone


async def test_dropping_a_runner_that_is_not_there_is_harmless(world: World) -> None:
    world.hub.drop("nobody")
    await world.link("r-1")
    assert (await world.event())[0] == "r-1"


async def test_a_closed_service_says_nothing_more(world: World) -> None:
    await world.link("r-1")
    await world.event()
    await world.hub.aclose()
    await world.hub.publish(SessionWanted(session_id="s"))
    await world.hub.call_roll()
    world.hub.drop("r-1")
    assert [event async for event in world.hub.messages()] == []
    assert [notice async for notice in world.hub.notices()] == []
