"""What is on its way to Redis: bounded, in order, and answered for.

Knows payloads and channels. Whoever publishes learns how many heard it, or that nobody can tell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from voicethere.adapters.relay.framing import MAX_FRAME_BYTES, LinkClosed

_BATCH = 128


@dataclass(frozen=True)
class Parcel:
    """One payload; `heard` comes to the number of subscribers, or to None where nobody can tell."""

    channel: str
    data: bytes
    heard: asyncio.Future[int | None]

    def settle(self, receivers: int | None) -> None:
        if not self.heard.done():
            self.heard.set_result(receivers)


class Outgoing:
    """Parcels that wait for their turn; takes some only between `open` and `close`."""

    def __init__(
        self,
        *,
        most_parcels: int = 1024,
        most_bytes: int = 2 * MAX_FRAME_BYTES,
        patience_seconds: float = 5.0,
    ) -> None:
        self._most_parcels = most_parcels
        self._most_bytes = most_bytes
        self._patience_seconds = patience_seconds
        self._parcels: deque[Parcel] = deque()
        self._taken: list[Parcel] = []
        self._bytes = 0
        self._open = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    def open(self) -> None:
        """Redis is there."""
        self._open = True

    def close(self) -> None:
        """Redis is away: nobody can tell what became of what is still here."""
        self._open = False
        for parcel in (*self._taken, *self._parcels):
            parcel.settle(None)
        self._taken = []
        self._parcels.clear()
        self._bytes = 0
        self._room.set()

    async def put(self, channel: str, build: Callable[[], bytes]) -> asyncio.Future[int | None]:
        """Return once the parcel has its place. `build` is called then: its number is that of its place.

        Raises:
            LinkClosed: Redis is away, or took nothing for `patience_seconds`.
        """
        try:
            async with asyncio.timeout(self._patience_seconds):
                while not self._has_place():
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise LinkClosed(f"the relay took nothing for {self._patience_seconds:g} s") from None
        heard = self.offer(channel, build)
        if heard is None:
            raise LinkClosed("the relay is away")
        return heard

    def offer(self, channel: str, build: Callable[[], bytes]) -> asyncio.Future[int | None] | None:
        """`put` for those that cannot wait: None where Redis is away or there is no place."""
        if not self._open or not self._has_place():
            return None
        parcel = Parcel(channel, build(), asyncio.get_running_loop().create_future())
        self._parcels.append(parcel)
        self._bytes += len(parcel.data)
        self._arrived.set()
        return parcel.heard

    async def take(self) -> list[Parcel]:
        """The next parcels, oldest first; waits for some. They keep their places until `settle`."""
        while not self._parcels:
            self._arrived.clear()
            await self._arrived.wait()
        while self._parcels and len(self._taken) < _BATCH:
            self._taken.append(self._parcels.popleft())
        return list(self._taken)

    async def flush(self, seconds: float) -> None:
        """Return once all that is here now has gone out, or nobody can tell; or after `seconds`."""
        here = [parcel.heard for parcel in (*self._taken, *self._parcels)]
        if here:
            await asyncio.wait(here, timeout=seconds)

    def settle(self, heard: list[int]) -> None:
        """How many heard each of the parcels taken."""
        for parcel, receivers in zip(self._taken, heard, strict=True):
            self._bytes -= len(parcel.data)
            parcel.settle(receivers)
        self._taken = []
        self._room.set()

    def _has_place(self) -> bool:
        # Whether or not it is open: who waits for a place must learn that there will be none.
        waiting = len(self._parcels) + len(self._taken)
        return not self._open or (waiting < self._most_parcels and self._bytes < self._most_bytes)
