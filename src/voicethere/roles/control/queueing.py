"""Putting one item on the `session-errors` queue, with an answer that says what to do where it takes none."""

from __future__ import annotations

import structlog

from voicethere.adapters.http.errors import HttpProblem
from voicethere.core.ports import QueueUnavailable
from voicethere.roles.control.plane import ControlPlane
from voicethere.wire.http import HttpErrorCode
from voicethere.wire.queue import QueueItem

RETRY_SECONDS = 1

_log = structlog.get_logger("voicethere.control")


async def put_on_queue(plane: ControlPlane, item: QueueItem, remedy: str) -> None:
    """Return once the item is durable. `remedy` is half a sentence: what whoever asked should do otherwise.

    Raises:
        HttpProblem: 503, nothing was accepted.
    """
    try:
        await plane.queue.put([item])
    except QueueUnavailable as error:
        _log.error("queue_unavailable", problem=str(error))
        words = f"The queue takes nothing now: nothing was accepted. {remedy} after {RETRY_SECONDS} s."
        headers = {"Retry-After": str(RETRY_SECONDS)}
        raise HttpProblem(503, HttpErrorCode.UNAVAILABLE, words, headers=headers) from error
