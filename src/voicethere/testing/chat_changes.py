"""Waiting for what a chat client's store comes to hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voicethere.chat.store import ChatStore


async def until_holds(store: ChatStore, condition: Callable[[], object], *, seconds: float) -> None:
    """Return once `condition()` holds; it is looked at after each change of the store.

    Raises:
        TimeoutError: it did not hold within `seconds`.
    """
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda state, action: changed.set())
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        unsubscribe()
