"""The error queue as a producer of this machine uses it: with a spool in front."""

from __future__ import annotations

from pathlib import Path

from voicethere.adapters.queue import EmbeddedErrorQueue, SpooledErrorQueue
from voicethere.cli.layout import DataLayout

BUSY_SECONDS = 1.0
"""How long a put waits for a queue that somebody holds, before it is spooled: a session's end waits too."""


def producer_queue(layout: DataLayout, spool: Path) -> SpooledErrorQueue:
    """The queue of this data directory; what it cannot take now waits in the folder `spool`."""
    return SpooledErrorQueue(EmbeddedErrorQueue(layout.queue, busy_seconds=BUSY_SECONDS), spool)
