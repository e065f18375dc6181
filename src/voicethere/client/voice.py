"""A session's microphone and speaker, whichever peer carries it.

The microphone's source is asked for its chunks once and goes on where it was when the peer changes: what it
gives while there is none waits for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from voicethere.adapters.rtc.client_peer import INBOUND_SAMPLE_RATE
from voicethere.adapters.rtc.opus import FRAME_SECONDS, encode_speech
from voicethere.adapters.rtc.outbound import Playback, SpeechTrack
from voicethere.client.audio import Microphone, PcmSink

_log = logging.getLogger("voicethere.client")

_AHEAD_SECONDS = 0.2
"""How much of the source a peer is given before it is due: what it takes with it when it is lost."""


class Voice:
    """Both directions of a session's audio. Either may be None: silence is sent, sound is dropped."""

    def __init__(self, microphone: Microphone | None, speaker: PcmSink | None) -> None:
        self._microphone = microphone
        self._speaker = speaker
        self._speaker_failed = False
        self._source: AsyncIterator[bytes] | None = None
        self._next: asyncio.Task[bytes | None] | None = None
        self._over = False
        self._playback: Playback | None = None
        self._track: SpeechTrack | None = None
        self._turn = 0

    def speak_on(self, track: SpeechTrack | None) -> None:
        """Send the microphone's audio on this track from now on, and on no other."""
        before, self._track = self._track, track
        if before is track:
            return
        if before is not None and track is not None and self._playback is not None:
            track.take_over(before)
            return
        if self._playback is not None:
            self._playback.interrupt()
            self._playback = None
        self._turn += 1
        if track is None or self._microphone is None or self._over:
            return
        if self._source is None:
            self._source = encode_speech(self._microphone.chunks(), self._microphone.sample_rate)
        self._playback = track.play(self._packets(self._source, self._turn))

    def hear(self, pcm: bytes) -> None:
        """s16 mono PCM from the agent, at 48 kHz."""
        if self._speaker is None:
            return
        try:
            self._speaker.write(pcm, INBOUND_SAMPLE_RATE)
        except Exception:
            if not self._speaker_failed:
                _log.exception("the speaker raised; the session goes on")
            self._speaker_failed = True

    async def aclose(self) -> None:
        """Let go of the microphone's source, and close the speaker where it can be closed."""
        self.speak_on(None)
        self._over = True
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        for closed, what in ((self._source, "aclose"), (self._speaker, "close")):
            close = getattr(closed, what, None)
            if close is None:
                continue
            try:
                result = close()
                if what == "aclose":
                    await result
            except Exception:
                _log.exception("the microphone or the speaker could not be closed")

    async def _packets(self, source: AsyncIterator[bytes], turn: int) -> AsyncIterator[bytes]:
        """One peer's share of the source: until it ends, or another peer's turn comes."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._over:
            if self._next is None:
                self._next = asyncio.create_task(_next_of(source), name="microphone")
            # Shielded: the source is not to end because a peer does.
            packet = await asyncio.shield(self._next)
            if turn != self._turn:
                return
            self._next = None
            if packet is None:
                self._over = True
                return
            yield packet
            due = max(due, loop.time()) + FRAME_SECONDS
            await asyncio.sleep(due - loop.time() - _AHEAD_SECONDS)


async def _next_of(source: AsyncIterator[bytes]) -> bytes | None:
    """The next packet; None where there is none, which is logged where it is the source's failure."""
    with contextlib.suppress(StopAsyncIteration):
        try:
            return await anext(source)
        except StopAsyncIteration:
            raise
        except Exception:
            _log.exception("the microphone raised; the session goes on without it")
    return None
