"""Gives memory back to the operating system in a process whose sessions hold much outside of Python.

A call's decoders, resamplers and keys are small objects to Python's collector, which sees no reason to hurry,
and megabytes to the C library, which keeps what is freed in one arena for each thread. Left alone a runner
holds many times what its sessions need. Knows nothing of sessions but how
many have ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable

EVERY_SECONDS = 10.0

_M_ARENA_MAX = -8
_MOST_ARENAS = 2


def hold_little() -> None:
    """Before the process starts threads: few arenas. Other C libraries than glibc have none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _MOST_ARENAS)


def set_aside() -> None:
    """Once a role serves: what lives now lives as long as the process, and full collections, which stop
    everything for tenths of a second otherwise, need not look at it again."""
    gc.collect()
    gc.freeze()


async def give_back(ended: Callable[[], int], *, every: float = EVERY_SECONDS) -> None:
    """Collect and return what sessions have left behind, until cancelled.

    `ended` counts the sessions that have ended so far; where none has since the last time, nothing is done.
    What lives when this starts (modules, the role itself) is set aside for good: a collection then looks at
    sessions only, and takes a few milliseconds.
    """
    set_aside()
    seen = ended()
    while True:
        await asyncio.sleep(every)
        if (now := ended()) == seen:
            continue
        seen = now
        await collect()


async def collect() -> None:
    """Once: free what nobody refers to, and return it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        await asyncio.to_thread(trim, 0)
