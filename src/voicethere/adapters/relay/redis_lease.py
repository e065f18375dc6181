"""The right to coordinate, kept as a key in Redis that lapses unless it is renewed.

Two clocks bound it: Redis forgets the key `seconds` after the last renewal, and the holder's own monotonic
clock ends its belief `seconds` after it began the last renewal that succeeded. The second ends first; so a
holder that was paused finds out before it acts, as long as it asks before it acts.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import structlog

from voicethere.adapters.relay.redis_client import REDIS_TROUBLE, check_name, open_client
from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock

_log = structlog.get_logger(__name__)

_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if not holder then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
return 0
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""

_RELEASE_SECONDS = 1.0


class RedisLease:
    """Implements `Lease`.

    Example:
        >>> lease = RedisLease("redis://127.0.0.1:6379", prefix="voicethere")
        >>> if await lease.hold():
        ...     coordinate()

    Raises:
        RelayUrlInvalid, ValueError: the address, the prefix or the name cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "voicethere",
        name: str = "coordinator",
        seconds: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        if seconds < 0.1:
            raise ValueError(f"a lease of {seconds:g} s cannot be kept; 0.1 s are the least")
        self._key = f"{check_name('the prefix', prefix)}:lease:{check_name('the name of a lease', name)}"
        self._seconds = seconds
        self._clock: Clock = SystemClock() if clock is None else clock
        # A holder must be able to ask twice before the lease lapses.
        self._answer_seconds = min(2.0, seconds / 3)
        self._client = open_client(url, connect_seconds=self._answer_seconds)
        self._token = secrets.token_hex(16)
        self._held_until: float | None = None
        self._troubled = False
        self._closed = False
        self._turn = asyncio.Lock()

    @property
    def seconds(self) -> float:
        """How long after the last `hold` another may take it."""
        return self._seconds

    async def hold(self) -> bool:
        """Take it, or keep it; False on any trouble with Redis.

        False once, too, where more than `seconds` went by since the last renewal, even if nobody else took
        it: somebody may have, and given it back. Whoever coordinates must learn of that and look again.
        """
        async with self._turn:
            if self._closed:
                return False
            asked_at = self._clock.monotonic()
            if self._held_until is not None and asked_at >= self._held_until:
                _log.warning("lease_lapsed", key=self._key, seconds=self._seconds)
                await self._give_back()
                return False
            if not await self._ask():
                return False
            # From before it was asked: Redis cannot have begun to count earlier.
            self._held_until = asked_at + self._seconds
            if self._clock.monotonic() >= self._held_until:
                await self._give_back()
                return False
            return True

    async def release(self) -> None:
        """Let the next one have it now. Harmless where it is not ours, or Redis is away: then it lapses."""
        async with self._turn:
            await self._give_back()

    async def aclose(self) -> None:
        """Release it, and the connection; a Redis that does not answer costs two seconds at most."""
        async with self._turn:
            if self._closed:
                return
            self._closed = True
            await self._give_back()
            with contextlib.suppress(*REDIS_TROUBLE):
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._client.aclose()

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(self._answer_seconds):
                mine = await self._client.eval(
                    _HOLD, 1, self._key, self._token, str(round(self._seconds * 1000))
                )
        except REDIS_TROUBLE as error:
            if not self._troubled:  # once per outage
                _log.warning("lease_unavailable", key=self._key, problem=str(error) or type(error).__name__)
            self._troubled = True
            return False
        self._troubled = False
        if not mine:
            self._held_until = None
        return bool(mine)

    async def _give_back(self) -> None:
        """With a new token from now on: an order to hold that is still on its way must not bring it back."""
        token, self._token = self._token, secrets.token_hex(16)
        held, self._held_until = self._held_until, None
        if held is None and not self._troubled:
            return
        with contextlib.suppress(*REDIS_TROUBLE):
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._client.eval(_RELEASE, 1, self._key, token)
