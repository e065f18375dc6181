"""What is accepted from strangers (candidates, audio, descriptions), and which addresses are offered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator

import pytest
from aiortc import RTCIceGatherer, RTCIceTransport, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.audio.frame import AudioFrame
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.rtc import descriptions
from voicethere.adapters.rtc.candidates import MalformedCandidate, Skip, screen
from voicethere.adapters.rtc.decode_errors import report_decode_errors
from voicethere.adapters.rtc.host_addresses import choose, machine_addresses, offer_only
from voicethere.adapters.rtc.ice_end import end_ice
from voicethere.adapters.rtc.inbound import pcm_frames
from voicethere.adapters.rtc.opus import SILENCE, audio_frame
from voicethere.adapters.rtc.outbound import SpeechQueueFull, SpeechTrack
from voicethere.adapters.rtc.quiet_logs import quiet_rtc_logs
from voicethere.testing.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("line", "skip"),
    [
        ("candidate:1 1 udp 2130706431 10.0.0.1 5000 typ host", None),
        ("a=candidate:1 1 UDP 1 fd00::2 5000 typ srflx raddr 10.0.0.1 rport 5 generation 0 ufrag x", None),
        ("1 1 udp 1 10.0.0.1 5000 typ relay", None),
        ("candidate:1 1 udp 1 abc.LOCAL 5000 typ host", Skip.MDNS_NAME),
        ("candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active", Skip.NOT_UDP),
        ("candidate:1 2 udp 1 10.0.0.1 5000 typ host", Skip.OTHER_COMPONENT),
        ("candidate:1 1 udp 1 10.0.0.1 5000 typ prflx", Skip.UNUSABLE_TYPE),
        ("candidate:1 1 udp 1 0.0.0.0 5000 typ host", Skip.UNUSABLE_ADDRESS),
        ("candidate:1 1 udp 1 224.0.0.1 5000 typ host", Skip.UNUSABLE_ADDRESS),
        ("candidate:1 1 udp 1 255.255.255.255 5000 typ host", Skip.UNUSABLE_ADDRESS),
        ("candidate:1 1 udp 1 10.0.0.1 0 typ host", Skip.UNUSABLE_ADDRESS),
    ],
)
def test_candidates_that_are_used_and_that_are_not(line: str, skip: Skip | None) -> None:
    screened = screen(line)
    assert screened.skip is skip
    assert (screened.candidate is None) == (skip is not None)


@given(st.text(max_size=80) | st.from_regex(r"candidate:\w 1 udp \d+ [\w.:]+ \d+ typ host.*"))
def test_no_line_breaks_the_screening(line: str) -> None:
    with contextlib.suppress(MalformedCandidate):
        screened = screen(line)
        assert (screened.candidate is None) != (screened.skip is None)


def test_a_description_is_parted_from_its_candidates() -> None:
    prepared = descriptions.prepare("v=0\na=candidate:1\na=mid:0\na=candidate:1\na=end-of-candidates\n")
    assert prepared.sdp == "v=0\r\na=mid:0\r\n"
    assert prepared.candidate_lines == ["a=candidate:1"]


def test_a_few_addresses_ipv4_first_and_loopback_where_there_is_nothing_else() -> None:
    everything = ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "fd00::1", "10.0.0.1", "10.0.0.1", "junk"]
    assert choose(everything) == ["10.0.0.1", "fd00::1"]
    assert choose(["127.0.0.1", "::1", "fe80::1"]) == ["127.0.0.1"]
    assert choose([]) == ["127.0.0.1"]
    assert len(choose([f"10.0.0.{n}" for n in range(1, 50)])) == 4
    assert "127.0.0.1" in machine_addresses()


async def test_aioice_still_gathers_on_what_it_is_given() -> None:
    # Private to aioice: a new version that gathers in another way must fail here.
    transport = RTCIceTransport(RTCIceGatherer(iceServers=[]))
    offer_only(transport, ["127.0.0.1"])
    await transport.iceGatherer.gather()
    assert [candidate.ip for candidate in transport.iceGatherer.getLocalCandidates()] == ["127.0.0.1"]
    await transport.stop()


async def test_aiortc_still_keeps_its_start_and_its_decoding_flag_where_we_look() -> None:
    transport = RTCIceTransport(RTCIceGatherer(iceServers=[]))
    await end_ice(transport, 1)
    assert transport._connection._query_consent_task is None
    connection = RTCPeerConnection()
    receiver = connection.addTransceiver("audio").receiver
    told: list[int] = []
    report_decode_errors(receiver, lambda: told.append(1))
    flag = receiver._RTCRtpReceiver__decoder_error  # type: ignore[attr-defined]
    flag.set()
    await asyncio.sleep(0)
    assert told == [1]
    assert flag.is_set()
    await connection.close()


def test_loggers_that_an_operator_has_set_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("aioice"), "level", logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("aiortc"), "level", logging.NOTSET)
    quiet_rtc_logs()
    assert logging.getLogger("aioice").level == logging.DEBUG
    assert logging.getLogger("aiortc").level == logging.WARNING


class Frames(MediaStreamTrack):
    """A track of given frames."""

    kind = "audio"

    def __init__(self, frames: list[object]) -> None:
        super().__init__()
        self._frames = deque(frames)

    async def recv(self) -> object:  # type: ignore[override]
        if not self._frames:
            raise MediaStreamError
        return self._frames.popleft()


def frame(pts: int | None, samples: int = 960) -> AudioFrame:
    made = audio_frame(b"\x10\x10" * samples, 48_000)
    made.pts = pts
    return made


async def collect(frames: list[object], rate: int = 48_000) -> tuple[bytes, list[str]]:
    problems: list[str] = []
    pcm = b"".join([part async for part in pcm_frames(Frames(frames), rate, on_problem=problems.append)])
    return pcm, problems


@in_virtual_time
async def test_gaps_become_silence_of_the_same_length_up_to_a_second() -> None:
    pcm, problems = await collect([frame(0), frame(960 * 3), frame(None), frame(960 * 4)])
    assert len(pcm) == 2 * 960 * 6
    assert pcm[2 * 960 : 2 * 960 * 3] == bytes(2 * 960 * 2)
    assert problems == []
    pcm, _ = await collect([frame(0), frame(48_000 * 3600)])
    assert len(pcm) == 2 * (960 + 48_000 + 960)


@in_virtual_time
async def test_audio_past_real_time_is_dropped_and_told() -> None:
    pcm, problems = await collect([frame(n * 960) for n in range(500)])
    assert len(pcm) / 2 / 48_000 == pytest.approx(2.0, abs=0.021)
    assert len(problems) > 300
    assert "faster than real time" in problems[0]


@in_virtual_time
async def test_frames_that_are_none_do_not_end_the_audio() -> None:
    pcm, problems = await collect([object(), frame(0), "junk", frame(960)], 16_000)
    assert len(problems) == 2
    assert len(pcm) > 2 * 500


@in_virtual_time
async def test_the_track_paces_speech_and_keeps_its_timestamps_whole() -> None:
    track = SpeechTrack()
    loop = asyncio.get_running_loop()
    started = loop.time()
    playback = track.play([bytes([n]) for n in range(1, 11)])
    packets = [await track.recv() for _ in range(11)]
    assert [bytes(packet) for packet in packets[:10]] == [bytes([n]) for n in range(1, 11)]
    steps = [after.pts - before.pts for before, after in itertools.pairwise(packets)]
    assert all(step >= 960 for step in steps)
    # The head start is 80 ms, and what is sent is not played before its time.
    assert loop.time() - started >= 0.12 - 0.005
    assert track.speaking
    assert await playback.finished()
    assert loop.time() - started >= 0.2 - 0.005
    assert not track.speaking
    track.stop()
    with pytest.raises(MediaStreamError):
        await track.recv()


async def packets_in_one_go(track: SpeechTrack) -> int:
    """How many packets the track gives before it waits."""
    count = 0
    while True:
        receiving = asyncio.ensure_future(track.recv())
        await asyncio.sleep(0)
        if not receiving.done():
            await receiving
            return count
        count += 1


@in_virtual_time
async def test_speech_that_follows_silence_has_a_head_start_of_80_ms_and_silence_has_none() -> None:
    track = SpeechTrack()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await packets_in_one_go(track) < 4
    for _ in range(30):  # silence at full rate, then once in a while
        silence = await track.recv()
        assert silence.pts is not None
        assert silence.pts / 48_000 <= loop.time() - began + 0.001
    track.play([b"a"] * 5)
    assert await packets_in_one_go(track) >= 4  # and a fifth where the last silence is a while ago
    while not await track.drained(0):
        await track.recv()
    await track.recv()

    playback = track.play([bytes([n]) for n in range(1, 21)])
    packets = []
    while not playback.done:
        packets.append(await track.recv())
        assert packets[-1].pts is not None
        assert packets[-1].pts / 48_000 <= loop.time() - began + 0.081
    # All of it in order, each packet with its own time, and silence behind it.
    assert [bytes(packet) for packet in packets[:20]] == [bytes([n]) for n in range(1, 21)]
    assert [b.pts - a.pts for a, b in itertools.pairwise(packets[:20])] == [960] * 19
    assert {bytes(packet) for packet in packets[20:]} == {SILENCE}
    track.stop()


@in_virtual_time
async def test_a_slow_source_uses_its_head_start_up_before_silence_is_put_in() -> None:
    track = SpeechTrack()
    more = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"a"
        await more.wait()
        yield b"b"

    playback = track.play(source())
    while bytes(await track.recv()) == SILENCE:
        pass  # the source has not begun
    heard = [bytes(await track.recv()) for _ in range(4)]
    receiving = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0)
    more.set()
    heard.append(bytes(await receiving))
    assert heard == [b"a"] * 4 + [b"b"]
    silence = await track.recv()
    assert bytes(silence) == SILENCE
    assert await playback.finished()
    track.stop()


@in_virtual_time
async def test_what_was_sent_ahead_of_its_time_can_still_be_interrupted() -> None:
    track = SpeechTrack()
    playback = track.play([b"a"] * 5)
    for _ in range(6):
        await track.recv()
    assert track.speaking
    assert track.interrupt_all() == 1
    assert await playback.finished() is False
    assert track.interrupt_all() == 0


@in_virtual_time
async def test_a_track_that_ends_interrupts_and_a_queue_has_an_end() -> None:
    track = SpeechTrack()
    playbacks = [track.play([b"x"]) for _ in range(256)]
    with pytest.raises(SpeechQueueFull, match="256"):
        track.play([b"x"])
    track.stop()
    assert [await playback.finished() for playback in playbacks] == [False] * 256
    assert await track.play([b"x"]).finished() is False
    assert await track.drained(1)
