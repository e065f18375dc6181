"""Whether the other side has everything that was sent on the data channels.

The one place that looks into aiortc's SCTP transport. An empty `bufferedAmount` only says that the
messages went to the association, which may still hold dozens of chunks that the peer has not acknowledged:
closing then loses them.
"""

from __future__ import annotations

import asyncio

from aiortc import RTCSctpTransport

_LOOK_EVERY_SECONDS = 0.002
_UNLIMITED_MESSAGE_BYTES = 256 * 1024


def outstanding(sctp: RTCSctpTransport) -> int:
    """Messages that wait, chunks that wait, and chunks that the peer has not acknowledged."""
    return len(sctp._data_channel_queue) + len(sctp._outbound_queue) + len(sctp._sent_queue)


def established(sctp: RTCSctpTransport) -> bool:
    """Whether the association is there to carry anything."""
    return bool(sctp._association_state == RTCSctpTransport.State.ESTABLISHED)


def remote_max_message_size(sctp: RTCSctpTransport) -> int:
    """Bytes of the largest message that the peer takes (it says 0 for "any": we stop at 256 KiB)."""
    return sctp._remote_max_message_size or _UNLIMITED_MESSAGE_BYTES


async def flushed(sctp: RTCSctpTransport, timeout: float) -> bool:
    """Wait until the peer has acknowledged everything; False after `timeout` seconds or when it is gone."""
    try:
        async with asyncio.timeout(timeout):
            while outstanding(sctp):
                if not established(sctp):
                    return False
                # Acknowledgements raise no event that we could wait for.
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except TimeoutError:
        return False
    return True
