"""The audio track that a peer sends: packets that are already encoded, paced at 20 ms.

Knows pacing, order and interruption; not what is said. While nothing plays it sends a packet of silence
now and then, and timestamps follow the wall clock: browsers and NATs are content, and it costs next to
nothing. Nothing here starts a thread.

Speech has a head start: its packets are sent up to 80 ms before their time, the first ones in one go. It is
what a receiver's jitter buffer wants to hold before it plays anything, and is heard that much earlier. The
silence behind speech keeps the same distance; a source that falls behind uses the head start up first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet

from voicethere.adapters.rtc.opus import FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_RATE, SILENCE, TIME_BASE

_WARM_UP_PACKETS = 25
"""Silence at full rate when the track starts: the receiver's jitter buffer fills, and it sees audio flow."""
_HEAD_START_PACKETS = 4
_HEAD_START_SECONDS = _HEAD_START_PACKETS * FRAME_SECONDS
_TAIL_PACKETS = 15 + _HEAD_START_PACKETS
"""Silence at full rate after speech: without it a jitter buffer keeps the last syllable to itself."""
_MAX_LAG_SAMPLES = SAMPLE_RATE // 4
"""A loop that was blocked for less catches up; for more, the timestamps jump to now instead."""
_MAX_AHEAD = 500
"""Packets (10 s) that are taken from a source before they are due."""
_MAX_QUEUED = 256

IDLE_INTERVAL_SECONDS = 0.2


class SpeechQueueFull(Exception):
    """Too much speech waits already; nothing was queued."""


class Playback:
    """One piece of speech in the track's queue."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        """Set when its first packet is sent, and when it is over without one."""
        self._packets: deque[bytes] = deque()
        self._exhausted = False
        self._failure: BaseException | None = None
        self._outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._feeder: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        """The event of the track that plays it: set when more packets are here."""

    @property
    def done(self) -> bool:
        """Whether it was played, interrupted, or failed."""
        return self._outcome.done()

    @property
    def _starved(self) -> bool:
        """Whether its source has to give more before it can go on."""
        return not self._packets and not self._exhausted

    async def finished(self) -> bool:
        """True when it was played to the end, False when it was interrupted or the track ended.

        Raises:
            Exception: whatever its source raised, once all that came before has been played.
        """
        return await asyncio.shield(self._outcome)

    def interrupt(self) -> None:
        """Stop here; harmless when it is over."""
        self._resolve(False)

    def _resolve(self, played: bool) -> None:
        self._packets.clear()
        if self._feeder is not None:
            self._feeder.cancel()
        self.started.set()
        if self._outcome.done():
            return
        if played and self._failure is not None:
            self._outcome.set_exception(self._failure)
            self._outcome.exception()  # a caller that does not ask is not told off for it
        else:
            self._outcome.set_result(played)

    def _take(self) -> bytes | None:
        if not self._packets:
            return None
        packet = self._packets.popleft()
        if len(self._packets) < _MAX_AHEAD:
            self._room.set()
        self.started.set()
        return packet


class SpeechTrack(MediaStreamTrack):
    """Plays what it is given, in order; silence otherwise.

    `idle_interval` is the time between packets of silence while idle, in seconds: a microphone that must
    sound continuous to a voice activity detector takes 0.02.

    Example:
        >>> playback = track.play(encode_speech(chunks, 22_050))
        >>> interrupted = not await playback.finished()
    """

    kind = "audio"

    def __init__(self, *, idle_interval: float = IDLE_INTERVAL_SECONDS) -> None:
        super().__init__()
        self._idle_interval = idle_interval
        self._queue: deque[Playback] = deque()
        self._sent: set[Playback] = set()
        """Sent to the end, ahead of time: not played yet."""
        self._ahead = 0.0
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._origin: float | None = None
        self._next_pts = 0
        self._silence_due = _WARM_UP_PACKETS
        self.sent_packets = 0
        """How many packets were taken by the sender, silence included."""

    def play(self, packets: AsyncIterator[bytes] | Iterable[bytes]) -> Playback:
        """Queue one piece of speech: 20-ms Opus packets. Must be called on the track's event loop.

        Raises:
            SpeechQueueFull: 256 pieces wait already.
        """
        if len(self._queue) >= _MAX_QUEUED:
            raise SpeechQueueFull(
                f"{_MAX_QUEUED} pieces of speech wait to be played; wait for some to finish"
            )
        playback = Playback()
        playback._wake = self._wake
        if self.readyState != "live":
            playback.interrupt()
            return playback
        if isinstance(packets, AsyncIterator):
            playback._feeder = asyncio.create_task(_feed(playback, packets), name="speech-feeder")
        else:
            playback._packets.extend(packets)
            playback._exhausted = True
        self._queue.append(playback)
        self._quiet.clear()
        self._wake.set()
        return playback

    def take_over(self, other: SpeechTrack) -> None:
        """Go on with what `other` has yet to play, where it is: another connection takes the place of its."""
        other._sent.clear()  # they resolve by themselves, and did leave
        while other._queue:
            playback = other._queue.popleft()
            playback._wake = self._wake
            self._queue.append(playback)
        other._quiet.set()
        if self._queue:
            self._quiet.clear()
            self._wake.set()

    def interrupt_all(self) -> int:
        """Stop what plays and forget what waits; how many pieces that were."""
        waiting = [playback for playback in (*self._sent, *self._queue) if not playback.done]
        for playback in waiting:
            playback.interrupt()
        self._sent.clear()
        self._queue.clear()
        return len(waiting)

    @property
    def speaking(self) -> bool:
        """Whether anything plays or waits."""
        return any(not playback.done for playback in (*self._sent, *self._queue))

    async def drained(self, timeout: float) -> bool:
        """Wait until all speech, and the silence that pushes it out of a receiver's jitter buffer, is sent.

        Await it before closing a peer whose last words matter. False after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """End the track: what plays or waits counts as interrupted."""
        self.interrupt_all()
        self._quiet.set()
        self._wake.set()
        super().stop()

    async def recv(self) -> Packet[Any]:
        """The next packet, when it is due. aiortc's sender calls this."""
        loop = asyncio.get_running_loop()
        if self._origin is None:
            self._origin = loop.time()
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            delay = self._origin + self._next_pts / SAMPLE_RATE - self._may_be_ahead() - loop.time()
            if delay > 0:
                await self._woken_within(delay)
                continue
            payload = self._next_payload()
            if payload is not None:
                break
            if self._idle_interval <= FRAME_SECONDS or not await self._woken_within(self._idle_interval):
                payload = SILENCE  # where it is continuous, the pacing has waited already
                break
        late = int((loop.time() - self._origin) * SAMPLE_RATE) - self._next_pts
        if late > (FRAME_SAMPLES if payload is SILENCE else _MAX_LAG_SAMPLES):
            self._next_pts += late
        packet = Packet(payload)
        packet.pts = self._next_pts
        packet.time_base = TIME_BASE
        self._next_pts += FRAME_SAMPLES
        self.sent_packets += 1
        return packet

    def _may_be_ahead(self) -> float:
        """How long before its time the next packet may be sent, in seconds."""
        while self._queue and self._queue[0].done:
            self._queue.popleft()
        if not self._queue:
            return self._ahead
        return 0.0 if self._queue[0]._starved else _HEAD_START_SECONDS

    def _next_payload(self) -> bytes | None:
        """A packet of speech, or of silence where some is due at full rate, or None: idle."""
        while self._queue:
            current = self._queue[0]
            payload = None if current.done else current._take()
            if payload is not None:
                if self._silence_due == 0:
                    self._jump_to_now()
                self._silence_due = _TAIL_PACKETS
                self._ahead = _HEAD_START_SECONDS
                return payload
            if not current.done and current._starved:
                break  # its source is slower than speech: silence until more comes
            # Here its last packet has had its 20 ms; how long ago it was due is the head start's matter.
            self._queue.popleft()
            self._finish(current)
        if self._silence_due > 0:
            self._silence_due -= 1
            if self._silence_due == 0 and not self._queue:
                self._ahead = 0.0
                self._quiet.set()
            return SILENCE
        return None

    def _finish(self, playback: Playback) -> None:
        """It is sent to its end: it counts as played when its last packet's time is over."""
        assert self._origin is not None  # recv set it
        loop = asyncio.get_running_loop()
        left = self._origin + self._next_pts / SAMPLE_RATE - loop.time()
        if playback.done or left <= 0:
            playback._resolve(True)
            return
        self._sent.add(playback)
        loop.call_later(left, self._played, playback)

    def _played(self, playback: Playback) -> None:
        self._sent.discard(playback)
        playback._resolve(True)

    def _jump_to_now(self) -> None:
        """After idling the next timestamp is in the past: speech starts now."""
        assert self._origin is not None  # recv set it
        now = asyncio.get_running_loop().time()
        self._next_pts = max(self._next_pts, int((now - self._origin) * SAMPLE_RATE))

    async def _woken_within(self, seconds: float) -> bool:
        """Wait for news of the queue; False when there was none."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True


async def _feed(playback: Playback, packets: AsyncIterator[bytes]) -> None:
    try:
        async for packet in packets:
            playback._packets.append(packet)
            playback._wake.set()
            if len(playback._packets) >= _MAX_AHEAD:
                playback._room.clear()
                await playback._room.wait()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        playback._failure = error
    finally:
        playback._exhausted = True
        playback._wake.set()
        aclose = getattr(packets, "aclose", None)
        if aclose is not None:
            with contextlib.suppress(Exception):
                await aclose()
