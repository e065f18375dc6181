"""The runner's and the client's peer over real WebRTC on this machine, with a client that misbehaves too."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from voicethere.adapters.rtc import outbound, sctp_flush
from voicethere.adapters.rtc import peer as peer_module
from voicethere.adapters.rtc.candidates import MalformedCandidate
from voicethere.adapters.rtc.client_peer import ClientPeer
from voicethere.adapters.rtc.descriptions import BadDescription
from voicethere.adapters.rtc.events import (
    AudioProblem,
    AudioReceived,
    ConnectFailed,
    ConnectionState,
    ConnectionStateChanged,
    ControlClosed,
    ControlReceived,
    PeerEvent,
    SyncReceived,
)
from voicethere.adapters.rtc.opus import encode_all, encode_speech
from voicethere.adapters.rtc.peer import MessageTooLarge, PeerSetupError
from voicethere.adapters.rtc.server_peer import ServerPeer
from voicethere.client.audio import rms
from voicethere.testing.scripted_server import cut_wires
from voicethere.wire.session_api import IceServer
from voicethere.wire.signaling import Candidate


class Recorder:
    """Every event of a peer, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[PeerEvent] = []
        self.pcm = bytearray()
        self._changed = asyncio.Event()

    def __call__(self, event: PeerEvent) -> None:
        if isinstance(event, AudioReceived):
            self.pcm += event.pcm
        else:
            self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Pair:
    """A server peer, a client peer, and what they said."""

    def __init__(self, *, audio: bool = False, client_audio: bool = True, **options: Any) -> None:
        self.at_server, self.at_client = Recorder(), Recorder()
        self.server = ServerPeer(audio=audio, on_event=self.at_server, **options)
        self.client = ClientPeer(audio=audio and client_audio, on_event=self.at_client, **options)

    async def connected(self) -> None:
        await self.at_server.until(lambda: self.server.connected)
        await self.at_client.until(lambda: self.client.connected)


@contextlib.asynccontextmanager
async def pair(*, connect: bool = True, **options: Any) -> AsyncIterator[Pair]:
    both = Pair(**options)
    try:
        if connect:
            await both.server.answer(await both.client.answer_to(await both.server.offer()))
            await both.connected()
        yield both
    finally:
        assert await both.client.close()
        assert await both.server.close()


def tone(seconds: float, rate: int) -> bytes:
    count = int(seconds * rate)
    return struct.pack(f"<{count}h", *(int(12_000 * math.sin(2764 * n / rate)) for n in range(count)))


async def chunks_of(pcm: bytes, size: int = 4410) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


def split_candidates(sdp: str) -> tuple[str, list[str]]:
    lines = sdp.splitlines()
    without = [line for line in lines if not line.startswith(("a=candidate", "a=end-of"))]
    found = dict.fromkeys(line[2:] for line in lines if line.startswith("a=candidate"))
    return "\r\n".join(without) + "\r\n", list(found)


async def test_messages_both_ways_and_events_in_order() -> None:
    async with pair() as both:
        assert both.server.send_control("to the client")
        assert both.server.send_binary(b"\x01", "sync")
        assert both.client.send_control('{"type": "chat"}')
        assert both.client.send_binary(b"\x02", "control")
        assert both.client.send_binary(b"", "sync")
        await both.at_client.until(lambda: len(both.at_client.of(SyncReceived)) == 1)
        await both.at_client.until(lambda: len(both.at_client.of(ControlReceived)) == 1)
        await both.at_server.until(lambda: len(both.at_server.of(ControlReceived)) == 2)
        await both.at_server.until(lambda: len(both.at_server.of(SyncReceived)) == 1)
        assert [event.data for event in both.at_server.of(ControlReceived)] == ['{"type": "chat"}', b"\x02"]
        assert both.at_server.of(SyncReceived) == [SyncReceived(b"")]
        states = [event.state for event in both.at_server.of(ConnectionStateChanged)]
        assert states == [ConnectionState.CONNECTING, ConnectionState.CONNECTED]
        with pytest.raises(ValueError, match="no channel 'voice'"):
            both.server.send_binary(b"", "voice")


async def test_an_offer_has_credentials_candidates_and_audio_only_where_it_belongs() -> None:
    for audio, media in ((True, ["audio", "application"]), (False, ["application"])):
        async with pair(connect=False, audio=audio) as both:
            offer = await both.server.offer()
            sections = ["m=" + section for section in offer.split("m=")[1:]]
            assert [section[2:].split()[0] for section in sections] == media
            for section in sections:
                assert "a=ice-ufrag:" in section
                assert "a=ice-pwd:" in section
                assert "a=candidate:" in section
            if audio:
                assert "a=sendrecv" in sections[0]
                assert "opus/48000" in sections[0]
                assert "PCMU" not in sections[0]


async def test_audio_both_ways_keeps_its_length_and_loudness() -> None:
    async with pair(audio=True) as both:
        assert both.server.speech is not None
        assert both.client.speech is not None
        down = both.server.speech.play(encode_speech(chunks_of(tone(0.5, 22_050)), 22_050))
        up = both.client.speech.play(await encode_all(chunks_of(tone(0.5, 16_000)), 16_000))
        assert await asyncio.gather(down.finished(), up.finished()) == [True, True]
        assert await both.server.speech.drained(10)
        await both.at_client.until(lambda: loud(both.at_client.pcm, 48_000) >= 0.46)
        await both.at_server.until(lambda: loud(both.at_server.pcm, 16_000) >= 0.46)
        assert loud(both.at_client.pcm, 48_000) < 0.56
        assert loud(both.at_server.pcm, 16_000) < 0.56


async def test_speech_after_silence_is_heard_whole_and_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its first packets come in one go (the track's head start): none of them may be lost for it. Where the
    # machine holds the track up for longer than it catches up with, a gap is right.
    monkeypatch.setattr(outbound, "_MAX_LAG_SAMPLES", 60 * 48_000)
    async with pair(audio=True) as both:
        speech = both.server.speech
        assert speech is not None
        assert await speech.drained(10)
        both.at_client.pcm.clear()
        playback = speech.play(await encode_all(chunks_of(tone(0.6, 48_000)), 48_000))
        assert await playback.finished()
        assert await speech.drained(10)
        await both.at_client.until(lambda: loud(both.at_client.pcm, 48_000) >= 0.58)
        heard = np.frombuffer(bytes(both.at_client.pcm), np.int16)
        first = np.flatnonzero(np.abs(heard) > 1000)[0]
        # Without a gap up to the codec's last milliseconds, which come with the silence behind them.
        quietest = min(np.abs(heard[at : at + 960]).max() for at in range(first, first + 27_840 - 960, 960))
        assert quietest > 1000
        assert loud(heard[first:].tobytes(), 48_000) <= 0.64


async def test_speech_is_interrupted_in_the_middle_and_the_next_one_plays() -> None:
    async with pair(audio=True) as both:
        speech = both.server.speech
        assert speech is not None
        first = speech.play(encode_speech(chunks_of(tone(30, 8000)), 8000))
        second = speech.play([b"\xf8\xff\xfe"] * 5)
        await asyncio.wait_for(first.started.wait(), 10)
        assert speech.speaking
        assert speech.interrupt_all() == 2
        assert await first.finished() is False
        assert await second.finished() is False
        assert not speech.speaking
        assert await speech.play([b"\xf8\xff\xfe"] * 3).finished() is True


async def test_speech_whose_source_fails_plays_what_there_was_and_raises() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"\xf8\xff\xfe"
        raise RuntimeError("the synthesizer died")

    async with pair(audio=True) as both:
        assert both.server.speech is not None
        playback = both.server.speech.play(broken())
        with pytest.raises(RuntimeError, match="synthesizer died"):
            await playback.finished()
        assert playback.started.is_set()


async def test_a_client_without_a_microphone_hears() -> None:
    async with pair(audio=True, client_audio=False) as both:
        assert both.client.speech is None
        assert both.server.speech is not None
        both.server.speech.play(await encode_all(chunks_of(tone(0.3, 48_000)), 48_000))
        await both.at_client.until(lambda: loud(both.at_client.pcm, 48_000) > 0.25)
        assert not both.at_server.pcm


async def test_packets_that_cannot_be_decoded_are_told_and_survived() -> None:
    async with pair(audio=True) as both:
        assert both.client.speech is not None
        both.client.speech.play([os.urandom(40) for _ in range(25)] + [b"\xff" * 3] * 25)
        began = asyncio.get_running_loop().time()
        await both.at_server.until(lambda: both.server.counts.audio_problems >= 3)
        both.client.speech.play(await encode_all(chunks_of(tone(0.4, 16_000)), 16_000))
        await both.at_server.until(lambda: loudest(both.at_server.pcm, 16_000, 0.4) > 0.3)
        seconds = asyncio.get_running_loop().time() - began
        assert len(both.at_server.of(AudioProblem)) <= 1 + seconds  # one a second, however many there are


async def test_a_flush_before_the_close_loses_nothing() -> None:
    async with pair() as both:
        for _ in range(3):
            assert both.server.send_control("x" * 60_000)
        assert await both.server.flush(10)
        assert await both.server.close()
        await both.at_client.until(lambda: both.client.state is ConnectionState.CLOSED)
        assert [len(event.data) for event in both.at_client.of(ControlReceived)] == [60_000] * 3
        assert both.at_client.of(ControlClosed)


async def test_a_close_without_a_flush_does_lose_it() -> None:
    # If this ever passes the message through, `flush` tests nothing.
    async with pair() as both:
        assert both.server.send_control("x" * 200_000)
        assert await both.server.close()
        await both.at_client.until(lambda: both.client.state is ConnectionState.CLOSED)
        assert both.at_client.of(ControlReceived) == []


async def test_flush_says_no_when_the_other_side_is_gone_or_never_came() -> None:
    async with pair() as both:
        cut_wires(both.client)
        assert both.server.send_control("x" * 60_000)
        assert await both.server.flush(0.1) is False
    async with pair(connect=False) as both:
        assert await both.server.flush(0.1) is False


async def test_what_is_too_large_or_too_much_is_refused_and_the_reserve_is_for_urgent_messages() -> None:
    async with pair() as both:
        assert both.server.max_message_size == 262_144
        with pytest.raises(MessageTooLarge, match="262145 bytes"):
            both.server.send_control("x" * 262_145)
        cut_wires(both.client)
        while both.server.send_control("x" * 60_000):
            pass
        assert both.server.counts.refused_messages == 1
        assert both.server.send_control("x" * 60_000, urgent=True)
        for _ in range(40):
            both.server.send_control("x" * 60_000, urgent=True)
        assert both.server.send_control("x" * 60_000, urgent=True) is False
        assert sctp_flush.outstanding(both.server._connection.sctp) < 200


async def test_candidates_before_and_after_the_answer() -> None:
    for before in (True, False):
        async with pair(connect=False) as both:
            answer, lines = split_candidates(await both.client.answer_to(await both.server.offer()))
            assert lines
            held = [Candidate(candidate=line, sdp_mid="0") for line in lines]
            end = [None, Candidate(candidate="")]
            if not before:
                await both.server.answer(answer)
            for candidate in [*held, *end]:
                await both.server.add_candidate(candidate)
            if before:
                await both.server.answer(answer)
            await both.connected()


async def test_a_client_that_hides_its_addresses_connects_all_the_same() -> None:
    async with pair(connect=False) as both:
        answer, _ = split_candidates(await both.client.answer_to(await both.server.offer()))
        hidden = "candidate:1 1 udp 2113937151 2f9f1cd5-6f2a-4c2b-9d3e-000000000000.local 54321 typ host"
        await both.server.add_candidate(Candidate(candidate=hidden, sdp_mid="0"))
        await both.server.answer(answer.replace("a=setup", f"a={hidden}\r\na=end-of-candidates\r\na=setup"))
        await both.server.add_candidate(Candidate(candidate=""))
        await both.connected()
        assert both.server.counts.mdns_candidates == 2


async def test_junk_candidates_are_counted_and_change_nothing() -> None:
    async with pair(connect=False) as both:
        await both.server.add_candidate(Candidate(candidate="early junk"))
        answer = await both.client.answer_to(await both.server.offer())
        await both.server.answer(answer.replace("a=setup", "a=candidate:junk in the answer\r\na=setup"))
        junk = ["candidate:", "x" * 5000]
        junk += [f"candidate:1 1 udp 1 {where} typ host" for where in ("999.1.2.3 5", "::1 99999", "x 1")]
        for line in junk:
            with pytest.raises(MalformedCandidate):
                await both.server.add_candidate(Candidate(candidate=line))
        assert both.server.counts.malformed_candidates == 2 + len(junk)
        for number in range(100):
            line = f"candidate:{number} 1 tcp 1 10.0.0.1 9 typ host"
            await both.server.add_candidate(Candidate(candidate=line))
        assert both.server.counts.skipped_candidates + both.server.counts.excess_candidates == 100
        assert both.server.counts.excess_candidates > 0
        await both.connected()


async def test_answers_that_are_none() -> None:
    async with pair(connect=False) as both:
        good = await both.client.answer_to(await both.server.offer())
        bad = ["", "nonsense", "v=0\r\n", "v=0\r\n" + "a=x\r\n" * 20_000, good.replace("a=ice-ufrag", "a=x")]
        bad += [good.replace("m=application", "m=video"), good.replace("a=setup:active", "a=setup:actpass")]
        for sdp in bad:
            with pytest.raises(BadDescription):
                await both.server.answer(sdp)
        await both.server.answer(good)
        await both.connected()


async def test_nobody_answers_or_comes() -> None:
    async with pair(connect=False, connect_timeout=0.1) as both:
        await both.server.offer()
        await both.at_server.until(lambda: len(both.at_server.of(ConnectFailed)) == 1)
        assert "not connected within 0.1 s" in both.at_server.of(ConnectFailed)[0].reason
    async with pair(connect=False, connect_timeout=0.2) as both:
        answer, _ = split_candidates(await both.client.answer_to(await both.server.offer()))
        cut_wires(both.client)
        await both.server.answer(answer)
        await both.at_server.until(lambda: len(both.at_server.of(ConnectFailed)) == 1)


async def test_a_client_that_leaves_is_noticed_at_once() -> None:
    async with pair(audio=True) as both:
        await both.client.close()
        await both.at_server.until(lambda: both.server.state is ConnectionState.CLOSED)
        assert both.at_server.of(ControlClosed)
        assert both.at_server.of(ConnectFailed) == []


async def test_a_client_that_vanished_does_not_keep_us_from_closing() -> None:
    async with pair(audio=True) as both:
        cut_wires(both.client)
        assert both.server.send_control("are you there?")
        assert await asyncio.wait_for(both.server.close(), 2)


async def test_closing_at_any_stage_is_quick_and_repeatable() -> None:
    for stage in range(4):
        async with pair(connect=False, audio=True) as both:
            if stage >= 1:
                offer = await both.server.offer()
            if stage >= 2:
                answer = await both.client.answer_to(offer)
            if stage >= 3:
                await both.server.answer(answer)
            closing = asyncio.gather(both.server.close(), both.server.close())
            assert await asyncio.wait_for(closing, 2) == [True, True]
            count = len(both.at_server.events)
            assert await both.server.close()
            assert len(both.at_server.events) == count


async def test_close_is_bounded_when_the_library_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(peer_module, "CLOSE_TIMEOUT_SECONDS", 0.05)
    peer = ServerPeer(audio=False, on_event=Recorder())
    real_close = peer._connection.close
    monkeypatch.setattr(peer._connection, "close", hangs)
    assert await asyncio.wait_for(peer.close(), 2) is False
    await real_close()


async def test_an_owner_that_raises_does_not_end_the_connection() -> None:
    async with pair(connect=False) as both:

        def raises(event: PeerEvent) -> None:
            both.at_server(event)
            raise RuntimeError("in the owner")

        both.server._on_event = raises
        await both.server.answer(await both.client.answer_to(await both.server.offer()))
        await both.connected()
        both.client.send_control("1")
        both.client.send_control("2")
        await both.at_server.until(lambda: len(both.at_server.of(ControlReceived)) == 2)


async def test_channels_that_are_not_ours_are_closed() -> None:
    async with pair() as both:
        foreign = both.client._connection.createDataChannel("something-else")
        closed = asyncio.Event()
        foreign.on("close", closed.set)
        await asyncio.wait_for(closed.wait(), 10)
        assert both.server.counts.foreign_channels == 1


async def test_host_addresses_as_configured_and_servers_that_are_none() -> None:
    async with pair(host_addresses=["127.0.0.1"]) as both:
        _, lines = split_candidates(both.server._connection.localDescription.sdp)
        assert [line.split()[4] for line in lines] == ["127.0.0.1"]
    for options in ({"host_addresses": ["nowhere"]}, {"host_addresses": []}):
        with pytest.raises(ValueError, match="host_addresses"):
            ServerPeer(audio=False, on_event=Recorder(), **options)
    with pytest.raises(PeerSetupError, match="ice_servers"):
        ServerPeer(audio=False, on_event=Recorder(), ice_servers=[IceServer(urls="http://x")])


async def test_no_candidate_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with pair() as both:
        _, lines = split_candidates(both.server._connection.localDescription.sdp)
        address = lines[0].split()[4]
    assert address not in caplog.text


async def test_the_flush_still_finds_what_it_looks_at() -> None:
    # These attributes are private to aiortc: a new version that renames them must fail here.
    async with pair() as both:
        sctp = both.server._connection.sctp
        assert sctp is not None
        assert sctp_flush.established(sctp)
        assert sctp_flush.remote_max_message_size(sctp) == 262_144
        assert await sctp_flush.flushed(sctp, 10)
        assert sctp_flush.outstanding(sctp) == 0
        both.server.send_control("x" * 60_000)
        assert sctp_flush.outstanding(sctp) > 0
        assert await sctp_flush.flushed(sctp, 10)
        assert sctp_flush.outstanding(sctp) == 0
    assert not sctp_flush.established(sctp)


def loud(pcm: bytes | bytearray, rate: int) -> float:
    """Seconds of `pcm` that are not silent."""
    step = rate // 100 * 2
    parts = (bytes(pcm[start : start + step]) for start in range(0, len(pcm), step))
    return sum(len(part) / 2 / rate for part in parts if rms(part) > 0.03)


def loudest(pcm: bytes | bytearray, rate: int, seconds: float) -> float:
    """As `loud`, of the loudest part of so many seconds: what was heard may lie some way back by now."""
    size = int(seconds * rate) * 2
    return max(loud(pcm[at : at + size], rate) for at in range(0, max(1, len(pcm) - size + 1), size // 8))
