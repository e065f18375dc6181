"""Noticing within seconds that the other side has vanished: aiortc by itself takes 32 to 35 s.

While anything comes in, the other side is there. Once nothing has for a while it is asked, with a STUN check
on the pair in use, which every ICE peer answers by itself: an idle client is not a lost one. The one place
that knows where aiortc counts what comes in, and how aioice asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
from aioice import stun
from aiortc import RTCDtlsTransport, RTCIceTransport

_RECEIVED = "_RTCDtlsTransport__rx_packets"
_RETRANSMISSIONS = 3
"""Sent at once, and after 0.5, 1.5 and 3.5 s."""
_CATCH_UP_SECONDS = 0.25
"""When the answer is overdue: what a loop that was blocked has yet to read counts."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """`quiet_seconds` without anything until the other side is asked; `answer_seconds` for its answer.

    The sum is what it takes to notice a loss, so that a runner can offer again within 10 s of it.
    """

    quiet_seconds: float = 2.0
    answer_seconds: float = 6.0


DEFAULT_PATIENCE = Patience()


class Liveness:
    """Watches one connected transport. `on_vanished` is called once, on the event loop."""

    def __init__(
        self, transport: RTCDtlsTransport, *, patience: Patience, on_vanished: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._patience = patience
        self._on_vanished = on_vanished
        self._doubted = asyncio.Event()
        self._task = asyncio.create_task(self._watch(), name="rtc-liveness")

    def doubt(self) -> None:
        """There is reason to think that the other side is gone: ask now."""
        self._doubted.set()

    async def aclose(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            before = received(self._transport)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience.quiet_seconds):
                    await self._doubted.wait()
                before = received(self._transport)  # what came before the doubt says nothing about now
            self._doubted.clear()
            if received(self._transport) != before:
                continue
            if await answers(self._transport.transport, self._patience.answer_seconds):
                continue
            await asyncio.sleep(_CATCH_UP_SECONDS)
            if received(self._transport) == before:
                self._on_vanished()
                return


def received(transport: RTCDtlsTransport) -> int:
    """How many packets came in so far, STUN not among them."""
    count: int = getattr(transport, _RECEIVED)
    return count


async def answers(ice: RTCIceTransport, seconds: float) -> bool:
    """Whether the other side answers a connectivity check within `seconds`."""
    connection = ice._connection
    assert connection.remote_password is not None  # connected
    for pair in connection._nominated.values():
        request = connection.build_request(pair, nominate=False)
        try:
            async with asyncio.timeout(seconds):
                await pair.protocol.request(
                    request,
                    pair.remote_addr,
                    integrity_key=connection.remote_password.encode(),
                    retransmissions=_RETRANSMISSIONS,
                )
        except stun.TransactionFailed:
            return True  # a refusal comes from somebody, too
        except (TimeoutError, stun.TransactionError, OSError):
            return False
    return True
