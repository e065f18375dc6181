"""Ending what aioice leaves behind when a connection is closed while it is being made.

Closing stops the consent checks, but a connection that completes in the same moment starts them
afterwards, and they then run for ever. The one place that knows how aiortc starts ICE.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiortc import RTCIceTransport

_START_EVENT = "_RTCIceTransport__start"


async def end_ice(transport: RTCIceTransport, timeout: float) -> None:
    """After the transport was stopped: wait for its start to be over, then end its consent checks.

    Raises:
        TimeoutError: the start did not end in `timeout` seconds.
        AttributeError: this version of aiortc or aioice keeps them elsewhere.
    """
    start: asyncio.Event | None = getattr(transport, _START_EVENT)
    if start is not None:
        async with asyncio.timeout(timeout):
            await start.wait()
    consent = transport._connection._query_consent_task
    if consent is not None and not consent.done():
        consent.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await consent
