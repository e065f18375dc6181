"""Holds polls until a session's provisioning has come to something, at whichever service that happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from voicethere.wire.relay import SessionMoved


class Watch:
    """What one poll waits for."""

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        self._settled = asyncio.Event()

    def tell(self, move: SessionMoved) -> None:
        """For `Moves`."""
        self._moved.set()
        if move.settled:
            self._settled.set()

    async def until(self, *, settled: bool, seconds: float) -> None:
        """Return once the session has moved (with `settled`: is ready or failed), or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await (self._settled if settled else self._moved).wait()


class Moves:
    """A notice may be lost on its way: who waits looks at the database before and after."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    @contextlib.contextmanager
    def watch(self, session_id: str) -> Iterator[Watch]:
        """Hear of this session's moves from now on."""
        watch = Watch()
        watches = self._watches.setdefault(session_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches:
                self._watches.pop(session_id, None)

    def moved(self, move: SessionMoved) -> None:
        """Tell who watches."""
        for watch in self._watches.get(move.session_id, ()):
            watch.tell(move)
