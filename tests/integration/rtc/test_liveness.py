"""A peer notices within seconds that the other side has vanished, and takes no silence for it."""

from __future__ import annotations

import asyncio

from tests.integration.rtc.test_peers import pair
from voicethere.adapters.rtc import liveness
from voicethere.adapters.rtc.events import PeerVanished
from voicethere.adapters.rtc.liveness import DEFAULT_PATIENCE, Patience
from voicethere.testing.scripted_server import cut_wires

QUICK = Patience(quiet_seconds=0.05, answer_seconds=0.2)


async def test_both_sides_notice_when_the_wires_are_cut_and_say_so_once() -> None:
    for audio in (False, True):
        async with pair(audio=audio, patience=QUICK) as both:
            cut_wires(both.client)
            await both.at_server.until(lambda: bool(both.at_server.of(PeerVanished)))
            await both.at_client.until(lambda: bool(both.at_client.of(PeerVanished)))
            await asyncio.sleep(2 * QUICK.quiet_seconds)
            assert len(both.at_server.of(PeerVanished)) == len(both.at_client.of(PeerVanished)) == 1


async def test_an_idle_connection_is_asked_again_and_again_and_answers() -> None:
    # Asked soon, and however late the answer comes on a loaded machine: it comes.
    async with pair(patience=Patience(quiet_seconds=QUICK.quiet_seconds, answer_seconds=20)) as both:
        async with asyncio.timeout(60):
            for _ in range(3):
                assert await liveness.answers(both.server._dtls_transport().transport, 20)
                await asyncio.sleep(QUICK.quiet_seconds)
        assert not both.at_server.of(PeerVanished)
        assert not both.at_client.of(PeerVanished)


async def test_what_comes_in_is_counted() -> None:
    # Breaks when aiortc counts elsewhere: then silence would be all that the watch ever sees.
    async with pair() as both:
        before = liveness.received(both.server._dtls_transport())
        assert both.client.send_control("anything")
        await both.at_server.until(lambda: liveness.received(both.server._dtls_transport()) > before)


async def test_a_doubt_is_looked_into_at_once() -> None:
    async with pair(patience=Patience(quiet_seconds=60, answer_seconds=0.1)) as both:
        both.server.doubt()
        assert both.client.send_control("still here")
        await both.at_server.until(lambda: bool(both.at_server.events))
        cut_wires(both.client)
        both.server.doubt()
        await both.at_server.until(lambda: bool(both.at_server.of(PeerVanished)))


def test_a_loss_is_noticed_early_enough_to_offer_again_within_10_seconds() -> None:
    assert DEFAULT_PATIENCE.quiet_seconds + DEFAULT_PATIENCE.answer_seconds <= 8
