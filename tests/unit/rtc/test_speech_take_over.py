"""Speech that goes on when another connection takes the place of its own: in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from voicethere.adapters.rtc.opus import SILENCE
from voicethere.adapters.rtc.outbound import SpeechTrack
from voicethere.testing.virtual_time import in_virtual_time


async def packets_of(track: SpeechTrack, count: int) -> list[bytes]:
    """The next `count` packets that are no silence."""
    found: list[bytes] = []
    while len(found) < count:
        packet = bytes(await track.recv())
        if packet != SILENCE:
            found.append(packet)
    return found


@in_virtual_time
async def test_no_packet_is_lost_or_said_twice() -> None:
    first, second = SpeechTrack(), SpeechTrack()
    speech = [bytes([number]) for number in range(10, 110)]
    playing, waiting = first.play(speech), first.play([b"next"])
    said = await packets_of(first, 40)
    second.take_over(first)
    first.stop()
    said += await packets_of(second, 61)
    assert said == [*speech, b"next"]
    assert not first.speaking
    await second.recv()
    assert await playing.finished()
    await second.recv()
    await asyncio.sleep(0.2)
    assert await waiting.finished()
    second.stop()


@in_virtual_time
async def test_a_source_that_is_still_speaking_goes_on_into_the_new_track() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for number in range(10, 20):
            await asyncio.sleep(0.1)
            yield bytes([number])

    first, second = SpeechTrack(), SpeechTrack()
    playing = first.play(slowly())
    said = await packets_of(first, 3)
    second.take_over(first)
    first.stop()
    said += await packets_of(second, 7)
    assert said == [bytes([number]) for number in range(10, 20)]
    assert not playing.done
    second.stop()
    assert not await playing.finished()
