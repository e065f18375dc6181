"""The floor of every other latency here: a bare data channel between two peers in one process.

    python benchmarks/channel_round_trip.py [--count 1000] [--json]

Prints the round trip of a 100-byte message on voice-control (p50, p99) and the time to set a connection
up, from making both peers until both channels are open. Two cores are enough; it takes a few seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

from voicethere.adapters.rtc.client_peer import ClientPeer
from voicethere.adapters.rtc.events import ControlOpened, ControlReceived, PeerEvent, SyncOpened
from voicethere.adapters.rtc.server_peer import ServerPeer

_MESSAGE = "x" * 100
_WARM_UP = 20


class _Pair:
    """A connected server and client peer; the client echoes what it gets."""

    def __init__(self, *, audio: bool) -> None:
        self._waiting: asyncio.Future[None] | None = None
        self._opened = 0
        self._all_open = asyncio.Event()
        self.server = ServerPeer(audio=audio, on_event=self._at_server)
        self.client = ClientPeer(audio=audio, on_event=self._at_client)

    async def connect(self) -> None:
        await self.server.answer(await self.client.answer_to(await self.server.offer()))
        async with asyncio.timeout(10):
            await self._all_open.wait()

    async def round_trip(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        self.server.send_control(_MESSAGE)
        await self._waiting

    async def close(self) -> None:
        await self.server.close()
        await self.client.close()

    def _at_server(self, event: PeerEvent) -> None:
        self._count_open(event)
        if isinstance(event, ControlReceived) and self._waiting is not None:
            self._waiting.set_result(None)

    def _at_client(self, event: PeerEvent) -> None:
        self._count_open(event)
        if isinstance(event, ControlReceived) and isinstance(event.data, str):
            self.client.send_control(event.data)

    def _count_open(self, event: PeerEvent) -> None:
        if isinstance(event, ControlOpened | SyncOpened):
            self._opened += 1
            if self._opened == 4:
                self._all_open.set()


async def measure_round_trip(n: int) -> list[float]:
    """`n` round trips on voice-control of one connection, one after the other; milliseconds each."""
    pair = _Pair(audio=False)
    try:
        await pair.connect()
        for _ in range(_WARM_UP):
            await pair.round_trip()
        taken = []
        for _ in range(n):
            began = time.perf_counter()
            await pair.round_trip()
            taken.append((time.perf_counter() - began) * 1000)
        return taken
    finally:
        await pair.close()


async def measure_set_up(n: int, *, audio: bool) -> list[float]:
    """`n` connections, one after the other; milliseconds each. The first in a process is the slowest."""
    taken = []
    for _ in range(n):
        began = time.perf_counter()
        pair = _Pair(audio=audio)
        try:
            await pair.connect()
            taken.append((time.perf_counter() - began) * 1000)
        finally:
            await pair.close()
    return taken


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _main(count: int) -> dict[str, dict[str, float]]:
    set_up_data = await measure_set_up(20, audio=False)
    set_up_voice = await measure_set_up(20, audio=True)
    trips = await measure_round_trip(count)
    return {
        "round_trip_ms": {"p50": statistics.median(trips), "p99": percentile(trips, 0.99)},
        "set_up_data_ms": {"first": set_up_data[0], "p50": statistics.median(set_up_data[1:])},
        "set_up_voice_ms": {"first": set_up_voice[0], "p50": statistics.median(set_up_voice[1:])},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="how many round trips")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    figures = asyncio.run(_main(arguments.count))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, values in figures.items():
            print(f"{name:18}", "  ".join(f"{key} {value:7.2f}" for key, value in values.items()))
