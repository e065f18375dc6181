"""The audio that a peer receives, as PCM.

Knows resampling, gaps and the limit of real time; not what the audio says. Packets that were lost or never
sent (a sender may stay silent by sending nothing) come out as silence of the same length, so that time in
the PCM is time on the wire. A peer cannot make us process more audio than real time: what is too much is
dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

_MAX_GAP_SECONDS = 1.0
"""Silence put in place of one gap; a longer one is a pause of the sender's and is cut to this."""
_MAX_AHEAD_SECONDS = 2.0
"""How far the audio may run ahead of the clock: jitter and start-up bursts, not a flood."""


async def pcm_frames(
    track: MediaStreamTrack, sample_rate: int, *, on_problem: Callable[[str], None] | None = None
) -> AsyncIterator[bytes]:
    """s16 mono PCM at `sample_rate` Hz, as it arrives, until the track ends.

    `on_problem` hears, in words, of every frame that could not be used; none of them ends the iteration.
    """
    loop = asyncio.get_running_loop()
    resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate)
    expected_pts: int | None = None
    started = loop.time()
    seconds = 0.0
    try:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if not isinstance(frame, AudioFrame):
                _tell(on_problem, f"not an audio frame: {type(frame).__name__}")
                continue
            try:
                duration = frame.samples / frame.sample_rate
                pcm = b"".join(part.to_ndarray().tobytes() for part in resampler.resample(frame))
            except (av.FFmpegError, ValueError, ZeroDivisionError) as error:
                _tell(on_problem, f"a frame could not be resampled: {error}")
                resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate)
                continue
            gap = 0.0
            if frame.pts is not None:
                if expected_pts is not None and frame.pts > expected_pts:
                    gap = min((frame.pts - expected_pts) / frame.sample_rate, _MAX_GAP_SECONDS)
                expected_pts = frame.pts + frame.samples
            allowed = loop.time() - started + _MAX_AHEAD_SECONDS
            if seconds + duration > allowed:
                _tell(on_problem, "audio came faster than real time and was dropped")
                continue
            gap = min(gap, allowed - seconds - duration)
            if gap > 0:
                seconds += gap
                yield bytes(int(gap * sample_rate) * 2)
            if pcm:
                seconds += duration
                yield pcm
    finally:
        # A cancelled task's traceback keeps this frame alive until the garbage collector comes by; the
        # resampler's worker threads should not wait for that.
        del resampler


def _tell(on_problem: Callable[[str], None] | None, message: str) -> None:
    if on_problem is not None:
        on_problem(message)
