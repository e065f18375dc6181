"""The runner's end of a session's connections, with real WebRTC peers as clients and the room scripted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from aiortc import RTCIceTransport

from voicethere.adapters.rtc import liveness
from voicethere.adapters.rtc.client_peer import ClientPeer
from voicethere.adapters.rtc.events import ControlClosed, ControlReceived, PeerEvent
from voicethere.roles.runner.connections import MAX_WAITING_SIGNALS, ClientConnections, ConnectionEvents
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.testing.scripted_server import cut_wires
from voicethere.wire.signaling import RUNNER_PEER_ID, Description, PeerLeft, SessionDescription
from voicethere.wire.tagged import encode_text

SETTINGS = RunnerSettings(runner_id="r", reoffer_seconds=0.05, quiet_seconds=0.1, answer_seconds=20.0)
"""A client that is there has time to say so. Where it is gone, nobody need wait for that: see `IMPATIENT`."""
IMPATIENT = msgspec.structs.replace(SETTINGS, answer_seconds=0.5)
ME = "client-me"


class Session:
    """A room with one client in it, who answers whatever it is offered."""

    def __init__(self, settings: RunnerSettings) -> None:
        self.happened: list[str] = []
        self.heard: list[str | bytes] = []
        self.ignored: list[str] = []
        self.offers: list[str] = []
        self.peers: list[ClientPeer] = []
        self.at_client: list[tuple[int, PeerEvent]] = []
        self.answers = True
        self._news = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self.runner = ClientConnections(
            session_id="s",
            room_id="room",
            audio=False,
            ice_servers=[],
            settings=settings,
            signal=self._signal,
            events=ConnectionEvents(
                opened=lambda: self._note("opened"),
                lost=lambda: self._note("lost"),
                broken=lambda error: self._note(f"broken: {error}"),
                control=self._hear,
                sync=lambda data: None,
                audio=lambda pcm: None,
                audio_problem=lambda problem: None,
                ignored=self._ignored,
            ),
        )

    def _ignored(self, reason: str) -> None:
        self.ignored.append(reason)
        self._news.set()

    def _note(self, what: str) -> None:
        self.happened.append(what)
        self._news.set()

    def _hear(self, data: str | bytes) -> None:
        self.heard.append(data)
        self._news.set()

    def _signal(self, peer_id: str, text: str) -> None:
        offer = msgspec.json.decode(text, type=Description)
        self.offers.append(peer_id)
        self._news.set()
        if self.answers:
            task = asyncio.create_task(self._answer(peer_id, offer.sdp.sdp))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, peer_id: str, sdp: str) -> None:
        number = len(self.peers)

        def on_event(event: PeerEvent) -> None:
            self.at_client.append((number, event))
            self._news.set()

        peer = ClientPeer(audio=False, on_event=on_event)
        self.peers.append(peer)
        description = SessionDescription(type="answer", sdp=await peer.answer_to(sdp))
        answer = Description(
            type="answer", room="room", peer_id=peer_id, target_peer_id=RUNNER_PEER_ID, sdp=description
        )
        self.runner.signalled(peer_id, encode_text(answer))

    async def until(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def aclose(self) -> None:
        await self.runner.aclose()
        await asyncio.gather(*self._answering, return_exceptions=True)
        for peer in self.peers:
            await peer.close()


@contextlib.asynccontextmanager
async def session(settings: RunnerSettings = SETTINGS) -> AsyncIterator[Session]:
    room = Session(settings)
    try:
        room.runner.joined(ME)
        await room.until(lambda: room.happened == ["opened"])
        yield room
    finally:
        await room.aclose()


async def test_joining_again_brings_a_fresh_offer_and_the_first_goes_on_until_the_second_is_open() -> None:
    async with session() as room:
        room.answers = False
        room.runner.left(ME)
        room.runner.joined(ME)
        await room.until(lambda: len(room.offers) == 2)
        assert room.peers[0].send_control("on the first")
        await room.until(lambda: room.heard == ["on the first"])
        assert room.runner.send_control("to the first")
        await room.until(lambda: (0, ControlReceived("to the first")) in room.at_client)
        room.answers = True
        room.runner.joined(ME)
        await room.until(lambda: room.happened == ["opened", "opened"])
        assert room.runner.send_control("to the second")
        await room.until(lambda: (1, ControlReceived("to the second")) in room.at_client)
        await room.until(lambda: (0, ControlClosed()) in room.at_client)
        assert "lost" not in room.happened


async def test_nothing_that_is_on_its_way_is_lost_when_a_connection_is_replaced() -> None:
    async with session() as room:
        room.runner.left(ME)
        room.runner.joined(ME)
        sent = 0
        while room.happened != ["opened", "opened"]:
            assert room.peers[0].send_control(f"from the client {sent}" + "x" * 4000)
            assert room.runner.send_control(f"from the runner {sent}" + "x" * 4000)
            sent += 1
            await asyncio.sleep(0.001)
        last = {f"from the runner {number}" + "x" * 4000 for number in range(sent)}
        await room.until(lambda: len(room.heard) == sent)
        await room.until(
            lambda: {event.data for _, event in room.at_client if isinstance(event, ControlReceived)} == last
        )


async def test_a_transport_that_is_lost_is_offered_again_on_the_open_socket() -> None:
    async with session(IMPATIENT) as room:
        cut_wires(room.peers[0])
        await room.until(lambda: room.happened == ["opened", "lost", "opened"])
        assert room.offers == [ME, ME]
        await room.peers[1].close()  # a client that hangs up its connection, and not its socket
        await room.until(lambda: room.happened[3:] == ["lost", "opened"])


async def test_a_client_that_is_gone_altogether_is_lost_soon_and_not_offered_anything() -> None:
    async with session(IMPATIENT) as room:
        cut_wires(room.peers[0])
        room.runner.left(ME)
        await room.until(lambda: room.happened == ["opened", "lost"])
        await asyncio.sleep(3 * SETTINGS.reoffer_seconds)
        assert room.offers == [ME]


async def test_a_lost_socket_alone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = liveness.answers
    answers: asyncio.Queue[bool] = asyncio.Queue()

    async def asked(ice: RTCIceTransport, seconds: float) -> bool:
        answer = await ask(ice, seconds)
        answers.put_nowait(answer)
        return answer

    monkeypatch.setattr(liveness, "answers", asked)
    async with session() as room:
        room.runner.left(ME)
        for _ in range(5):
            assert await asyncio.wait_for(answers.get(), 10)
        assert room.happened == ["opened"]
        assert room.runner.send_control("still there")
        await room.until(lambda: (0, ControlReceived("still there")) in room.at_client)


async def test_a_peer_that_leaves_before_it_is_offered_again_is_offered_nothing() -> None:
    async with session() as room:
        await room.peers[0].close()
        await room.until(lambda: room.happened == ["opened", "lost"])
        room.runner.left(ME)
        await asyncio.sleep(3 * SETTINGS.reoffer_seconds)
        assert room.offers == [ME]


async def test_every_signal_that_comes_to_nothing_is_counted_with_its_reason() -> None:
    async with session() as room:
        room.runner.signalled("client-nobody", "{}")
        assert room.ignored == ["no_connection"]
        bad_answer = Description(
            type="answer",
            room="room",
            peer_id=ME,
            target_peer_id=RUNNER_PEER_ID,
            sdp=SessionDescription(type="answer", sdp="v=0"),
        )
        for text in ("junk", encode_text(PeerLeft(peer_id=ME)), encode_text(bad_answer)):
            room.runner.signalled(ME, text)
        await room.until(lambda: len(room.ignored) == 4)
        assert room.ignored[1:] == ["malformed", "not_for_the_runner", "not_usable"]
        for _ in range(MAX_WAITING_SIGNALS + 2):
            room.runner.signalled(ME, "junk")
        assert room.ignored[4:] == ["too_many", "too_many"]
        assert room.happened == ["opened"]
