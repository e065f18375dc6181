"""What every relay must do, asked of the embedded one and of the in-memory fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.core.ports import RelayHub, RunnerAway, RunnerLink
from voicethere.testing.relay import InMemoryRelayHub, InMemoryRunnerLink
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    DeployedAgent,
    Heartbeat,
    PeerJoinedRoom,
    RunnerHello,
    SessionAccepted,
    SignalToPeer,
    ToRunner,
    ToService,
)
from voicethere.wire.session_api import IceServer, Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings


class World:
    """One hub, any number of links, and what comes out of both."""

    def __init__(self, hub: Any, make_link: Callable[..., Any]) -> None:
        self.hub: RelayHub = hub
        self._make_link = make_link
        self._links: list[RunnerLink] = []
        self.events: asyncio.Queue[tuple[str, ToService | None]] = asyncio.Queue()
        self._pump = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.hub.messages():
            self.events.put_nowait(event)

    async def link(self, runner_id: str, sessions: list[str] | None = None) -> RunnerLink:
        hosted = [] if sessions is None else sessions
        link = await self._make_link(
            self.hub, lambda: RunnerHello(runner_id=runner_id, capacity=3, sessions=list(hosted))
        )
        self._links.append(link)
        return link

    async def event(self) -> tuple[str, ToService | None]:
        return await asyncio.wait_for(self.events.get(), 5)

    async def cut(self, runner_id: str, link: RunnerLink) -> None:
        self.hub.drop(runner_id)  # type: ignore[attr-defined]
        if isinstance(link, InMemoryRunnerLink):
            link.relink()

    async def aclose(self) -> None:
        for link in self._links:
            await link.aclose()
        await self.hub.aclose()
        await asyncio.wait_for(self._pump, 5)


async def _embedded_link(path: Path, hello: Callable[[], RunnerHello]) -> RunnerLink:
    return await EmbeddedRunnerLink.start(path, hello=hello)


@pytest.fixture(params=["embedded", "memory"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "embedded":
        path = tmp_path / "relay.sock"
        world = World(
            await EmbeddedRelayHub.start(path),
            lambda _hub, hello: _embedded_link(path, hello),
        )
    else:

        async def in_memory(hub: InMemoryRelayHub, hello: Callable[[], RunnerHello]) -> RunnerLink:
            return hub.new_link(hello)

        world = World(InMemoryRelayHub(), in_memory)
    yield world
    await world.aclose()


async def _next(messages: AsyncIterator[ToRunner]) -> ToRunner:
    return await asyncio.wait_for(anext(messages), 5)


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
