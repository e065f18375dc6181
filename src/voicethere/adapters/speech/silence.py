"""Taking the silence off both ends of synthesized speech."""

from __future__ import annotations

from array import array

_BLOCK_SECONDS = 0.01
_QUIET = 80  # of 32767: below -52 dBFS, where a synthesizer's silence lies and its softest fricatives do not
_KEPT_BLOCKS = 2  # 20 ms at each end, so that no onset is clipped


def trim_silence(pcm: bytes, sample_rate: int) -> bytes:
    """`pcm` without leading and trailing silence but for 20 ms of it; empty where all of it is silent."""
    samples = array("h", pcm)
    block = max(1, int(sample_rate * _BLOCK_SECONDS))

    def loud(start: int) -> bool:
        part = samples[start : start + block]
        return max(part) > _QUIET or min(part) < -_QUIET

    starts = range(0, len(samples), block)
    first = next((start for start in starts if loud(start)), None)
    if first is None:
        return b""
    last = next(start for start in reversed(starts) if loud(start))
    begin = max(0, first - _KEPT_BLOCKS * block)
    return samples[begin : last + (1 + _KEPT_BLOCKS) * block].tobytes()
