"""The floor of every other latency here: a bare data channel, its two peers in two processes.

    python benchmarks/channel_round_trip.py [--count 1000] [--json]

Prints the round trip of a 100-byte message on voice-control (p50, p99), back to back and after a pause of
20 ms each, and the time to set a connection up (both peers in one process, from making them until the
channels are open). It takes a few seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time

from voicethere.adapters.rtc.client_peer import ClientPeer
from voicethere.adapters.rtc.events import (
    ControlClosed,
    ControlOpened,
    ControlReceived,
    PeerEvent,
    SyncOpened,
)
from voicethere.adapters.rtc.server_peer import ServerPeer

_MESSAGE = "x" * 100
_WARM_UP = 20


class _Server:
    """A server peer that counts what opens and waits for what comes back."""

    def __init__(self, *, audio: bool) -> None:
        self._waiting: asyncio.Future[None] | None = None
        self._opened = 0
        self._open = asyncio.Event()
        self.peer = ServerPeer(audio=audio, on_event=self._on_event)

    async def opened(self) -> None:
        async with asyncio.timeout(10):
            await self._open.wait()

    async def round_trip(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        self.peer.send_control(_MESSAGE)
        await self._waiting

    def _on_event(self, event: PeerEvent) -> None:
        if isinstance(event, ControlOpened | SyncOpened):
            self._opened += 1
            if self._opened == 2:
                self._open.set()
        elif isinstance(event, ControlReceived) and self._waiting is not None:
            self._waiting.set_result(None)


class _Echo:
    """A client peer that sends back what it gets."""

    def __init__(self, *, audio: bool) -> None:
        self.closed = asyncio.Event()
        self.peer = ClientPeer(audio=audio, on_event=self._on_event)

    def _on_event(self, event: PeerEvent) -> None:
        if isinstance(event, ControlReceived) and isinstance(event.data, str):
            self.peer.send_control(event.data)
        elif isinstance(event, ControlClosed):
            self.closed.set()


async def measure_round_trip(n: int, *, pause: float = 0.0) -> list[float]:
    """`n` round trips on voice-control, one by one, to a client in another process; milliseconds each.

    With a `pause`, in seconds, before each: what a message takes that comes out of silence, when both
    processes sleep and their caches are cold.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--echo", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    server = _Server(audio=False)
    try:
        child.stdin.write(json.dumps(await server.peer.offer()).encode() + b"\n")
        await server.peer.answer(json.loads(await child.stdout.readline()))
        await server.opened()
        for _ in range(_WARM_UP):
            await server.round_trip()
        taken = []
        for _ in range(n):
            if pause:
                await asyncio.sleep(pause)
            began = time.perf_counter()
            await server.round_trip()
            taken.append((time.perf_counter() - began) * 1000)
        return taken
    finally:
        await server.peer.close()
        child.stdin.close()
        await child.wait()


async def _echo() -> None:
    """The client's process: an offer on standard input, the answer on standard output, then echoes."""
    echo = _Echo(audio=False)
    offer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    print(json.dumps(await echo.peer.answer_to(offer)), flush=True)
    await echo.closed.wait()
    await echo.peer.close()


async def measure_set_up(n: int, *, audio: bool) -> list[float]:
    """`n` connections, one after the other; milliseconds each. The first in a process is the slowest."""
    taken = []
    for _ in range(n):
        began = time.perf_counter()
        server, client = _Server(audio=audio), _Echo(audio=audio)
        try:
            await server.peer.answer(await client.peer.answer_to(await server.peer.offer()))
            await server.opened()
            taken.append((time.perf_counter() - began) * 1000)
        finally:
            await server.peer.close()
            await client.peer.close()
    return taken


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _main(count: int) -> dict[str, dict[str, float]]:
    set_up_data = await measure_set_up(20, audio=False)
    set_up_voice = await measure_set_up(20, audio=True)
    trips = await measure_round_trip(count)
    paused = await measure_round_trip(max(20, count // 10), pause=0.02)
    return {
        "round_trip_ms": {"p50": statistics.median(trips), "p99": percentile(trips, 0.99)},
        "after_a_pause_ms": {"p50": statistics.median(paused), "p99": percentile(paused, 0.99)},
        "set_up_data_ms": {"first": set_up_data[0], "p50": statistics.median(set_up_data[1:])},
        "set_up_voice_ms": {"first": set_up_voice[0], "p50": statistics.median(set_up_voice[1:])},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="how many round trips")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        asyncio.run(_echo())
        sys.exit()
    figures = asyncio.run(_main(arguments.count))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, values in figures.items():
            print(f"{name:18}", "  ".join(f"{key} {value:7.2f}" for key, value in values.items()))
