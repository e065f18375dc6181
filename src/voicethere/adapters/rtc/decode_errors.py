"""Counting audio packets that cannot be decoded.

aiortc decodes in a thread of its own and reports a bad packet only as a warning in the log and a flag. The
flag is replaced here, before the receiver starts, by one that calls us: the one place that knows its name.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from aiortc import RTCRtpReceiver

_FLAG = "_RTCRtpReceiver__decoder_error"


class _ReportingFlag(threading.Event):
    """An event that tells when it is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Callable[[], None]) -> None:
        super().__init__()
        self._loop = loop
        self._report = report

    def set(self) -> None:
        super().set()
        try:
            self._loop.call_soon_threadsafe(self._report)
        except RuntimeError:
            return  # the loop is closed: nobody is left to be told


def report_decode_errors(receiver: RTCRtpReceiver, report: Callable[[], None]) -> None:
    """Call `report` on the running event loop for every packet that this receiver cannot decode.

    Raises:
        AttributeError: this version of aiortc keeps its flag elsewhere.
    """
    if not isinstance(getattr(receiver, _FLAG), threading.Event):
        raise AttributeError(f"aiortc's RTCRtpReceiver has no flag {_FLAG} any more")
    setattr(receiver, _FLAG, _ReportingFlag(asyncio.get_running_loop(), report))
