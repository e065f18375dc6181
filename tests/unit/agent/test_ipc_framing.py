"""The IPC's frames: whatever way a stream is cut, the same frames come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.wire.ipc import MAX_FRAME_BYTES, FrameSplitter, FrameTooLong, add_length


@given(st.lists(st.binary(max_size=50)), st.data())
def test_frames_survive_any_cut(frames, data):
    stream = b"".join(add_length(frame) for frame in frames)
    splitter = FrameSplitter()
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == frames


def test_a_frame_past_the_limit_is_refused_at_both_ends():
    with pytest.raises(FrameTooLong):
        add_length(bytes(MAX_FRAME_BYTES + 1))
    splitter = FrameSplitter()
    frames = splitter.feed(add_length(b"good") + (MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    assert next(frames) == b"good"
    with pytest.raises(FrameTooLong):
        next(frames)
