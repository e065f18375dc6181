"""When to try to come back to a session, and when to give up. Knows neither sockets nor peers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

REJOIN_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Before the first try and between tries: they begin 1, 3, 7 and 15 s after the loss."""
LAST_TRY_SECONDS = 8.0


class RejoinFailed(Exception):
    """This try failed; the words say why. `final`: no other would succeed."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


async def rejoin(
    attempt: Callable[[], Awaitable[None]], *, delays: Sequence[float], elapsed: float = 0.0
) -> str | None:
    """Try once after each of `delays`; `elapsed` seconds of the first are over. None once a try succeeded.

    A try that is not over when the next one is due is cancelled; the last one has 8 s (or its own delay,
    if that is longer). Otherwise the answer is why it failed, in words.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() - elapsed
    why = ""
    for number, delay in enumerate(delays, start=1):
        due += delay
        await asyncio.sleep(due - loop.time())
        patience = delays[number] if number < len(delays) else max(LAST_TRY_SECONDS, delay)
        try:
            async with asyncio.timeout_at(max(due, loop.time()) + patience):
                await attempt()
            return None
        except TimeoutError:
            why = "the connection did not come up"
        except RejoinFailed as failure:
            why = str(failure)
            if failure.final:
                return f"It could not be resumed: {why}."
    tries = "try" if len(delays) == 1 else "tries"
    return f"It could not be resumed in {len(delays)} {tries}; the last time {why}."


def quiet_delays(delays: Sequence[float]) -> Iterator[float]:
    """Delays without end, for what nobody waits for: the last one again and again."""
    yield from delays
    while delays:
        yield delays[-1]
