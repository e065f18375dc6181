"""The commands of one Redis Stream and its one consumer group, as one consumer gives them.

Knows the commands and what their replies look like. Knows nothing of waiting, of order, or of what an item
means. Methods raise RedisError and OSError as they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

GROUP = "workers"
FIELD = b"item"
MAX_READ_BYTES = 8 * 1024 * 1024
PAGE = 100
"""How many entries one command reads: each is at most some 64 KiB, and Redis counts entries, not bytes."""
MAX_PAGE = 500
"""How many, where those read before were small."""
FIRST = "0-0"
_POSITION = re.compile(r"\d{1,20}-\d{1,20}")
_MANY = 1000

# A script, not MULTI: a Redis without memory lets nothing into a transaction, and would never be emptied.
_REMOVE = """
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
return redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
"""
# Atomic: were something given to the consumer in between, it would be lost with it.
_REMOVE_IF_EMPTY = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 0
"""
# An entry before which the group has been given everything, and that nobody holds, nobody is given any more.
_GIVE_AGAIN = """
if redis.call('XPENDING', KEYS[1], ARGV[1])[1] ~= 0 then
  return 0
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local known = {}
  for place = 1, #group, 2 do
    known[group[place]] = group[place + 1]
  end
  if known['name'] == ARGV[1] then
    if #redis.call('XRANGE', KEYS[1], '-', known['last-delivered-id'], 'COUNT', 1) == 0 then
      return 0
    end
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], '0')
    return 1
  end
end
return 0
"""


class EntryId(msgspec.Struct, frozen=True, order=True):
    """Where an entry stands in the stream; ids grow, and none is given twice."""

    milliseconds: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what is no id."""
        if not _POSITION.fullmatch(text):
            raise ValueError(f"not a position of this queue: {text[:48]!r}")
        milliseconds, _, number = text.partition("-")
        return cls(int(milliseconds), int(number))


class Entry(msgspec.Struct, frozen=True):
    """`data` is None where the entry was deleted although nobody had acknowledged it."""

    position: str
    data: bytes | None
    foreign: bool = False
    """It has no field of ours; `data` is then what it has, as JSON."""


class Consumer(msgspec.Struct, frozen=True):
    """A consumer of the group, as Redis knows it."""

    name: str
    pending: int
    idle_seconds: float


class Stream:
    """One stream, seen by the consumer `name`."""

    def __init__(self, client: Redis, key: str, name: str) -> None:
        self._client = client
        self._key = key
        self._name = name
        self._entry_bytes = MAX_READ_BYTES
        """Of the entries that were read last, on average."""

    async def _command(self, *words: bytes | str | int) -> Any:
        return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def append(self, payloads: Sequence[bytes]) -> None:
        """All of them or, where it raises an error that Redis gave, none."""
        if len(payloads) == 1:
            await self._command("XADD", self._key, "*", FIELD, payloads[0])
            return
        async with self._client.pipeline(transaction=True) as commands:
            for payload in payloads:
                commands.execute_command("XADD", self._key, "*", FIELD, payload)
            await commands.execute()

    async def remove(self, positions: Sequence[str]) -> None:
        """Acknowledge and delete them: of a thousand, both or neither."""
        for start in range(0, len(positions), _MANY):
            await self._client.eval(_REMOVE, 1, self._key, GROUP, *positions[start : start + _MANY])

    async def length(self) -> int:
        """How many entries there are."""
        return int(await self._client.xlen(self._key))

    async def oldest_seconds(self) -> float | None:
        """How long ago the first entry was added; an entry's id begins with the time of that."""
        entries: list[Any] = await self._command("XRANGE", self._key, "-", "+", "COUNT", 1)
        if not entries:
            return None
        seconds, microseconds = await self._client.time()
        added_ms = int(entries[0][0].partition(b"-")[0])
        return max(0.0, seconds + microseconds / 1e6 - added_ms / 1e3)

    async def give_again(self) -> bool:
        """Whether there was something that had been given, was not acknowledged, and that nobody holds: all
        that is there is new to the group then. A Redis that lost a part of its log can leave that."""
        return bool(await self._client.eval(_GIVE_AGAIN, 1, self._key, GROUP))

    async def create_group(self) -> None:
        """From the first entry on; harmless where it is there."""
        try:
            await self._command("XGROUP", "CREATE", self._key, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read_new(self, limit: int, *, block_milliseconds: int) -> list[Entry]:
        """Entries that nobody was given yet; waits for the first one for as long as it is told."""
        entries: list[Entry] = []
        size = 0
        while len(entries) < limit and size < MAX_READ_BYTES:
            # Each command costs a Redis that syncs always one more sync.
            page_entries = max(PAGE, min(MAX_PAGE, (MAX_READ_BYTES - size) // self._entry_bytes))
            count = min(page_entries, limit - len(entries))
            wait: list[str | int] = (
                ["BLOCK", block_milliseconds] if block_milliseconds > 0 and not entries else []
            )
            page = await self._read(">", count, wait)
            entries += page
            if page:
                page_bytes = sum(len(entry.data or b"") for entry in page)
                self._entry_bytes = max(1, page_bytes // len(page))
                size += page_bytes
            if len(page) < count:
                break
        return entries

    async def read_own(self, after: str) -> list[Entry]:
        """Entries behind `after` that this consumer was given and has not acknowledged."""
        return await self._read(after, PAGE, [])

    async def _read(self, after: str, count: int, wait: Sequence[str | int]) -> list[Entry]:
        reply = await self._command(
            "XREADGROUP", "GROUP", GROUP, self._name, "COUNT", count, *wait, "STREAMS", self._key, after
        )
        return [] if not reply else [_entry(raw) for raw in reply[0][1]]

    async def take_over(self, *, idle_milliseconds: int, cursor: str) -> tuple[str, list[Entry]]:
        """Some entries that were given to anybody so long ago, now this consumer's, and where to go on."""
        reply = await self._command(
            "XAUTOCLAIM", self._key, GROUP, self._name, idle_milliseconds, cursor, "COUNT", PAGE
        )
        # Redis 6.2 gives a nil for an entry that was deleted; later ones leave it out.
        return reply[0].decode(), [_entry(raw) for raw in reply[1] if raw]

    async def oldest_elsewhere(self) -> EntryId | None:
        """The oldest entry that another consumer was given and has not acknowledged."""
        reply = await self._command("XPENDING", self._key, GROUP)
        others = [name for name, _ in reply[3] or () if name != self._name.encode()]
        if not others:
            return None
        async with self._client.pipeline(transaction=False) as commands:
            for name in others:
                commands.execute_command("XPENDING", self._key, GROUP, "-", "+", 1, name)
            replies = await commands.execute()
        return min((EntryId.parse(reply[0][0].decode()) for reply in replies if reply), default=None)

    async def hand_back(self, positions: Sequence[str], *, idle_milliseconds: int) -> None:
        """As if they had been given so long ago: for others to take over at their next look."""
        for start in range(0, len(positions), _MANY):
            some = positions[start : start + _MANY]
            await self._command(
                "XCLAIM", self._key, GROUP, self._name, 0, *some, "IDLE", idle_milliseconds, "JUSTID"
            )

    async def consumers(self) -> list[Consumer]:
        """Everybody who ever read from the group, and was not removed."""
        reply = await self._command("XINFO CONSUMERS", self._key, GROUP)
        return [_consumer(dict(zip(raw[::2], raw[1::2], strict=True))) for raw in reply]

    async def remove_consumer(self, name: str) -> None:
        """Forget that consumer, unless it holds something."""
        await self._client.eval(_REMOVE_IF_EMPTY, 1, self._key, GROUP, name)


def _entry(raw: Any) -> Entry:
    position, fields = raw[0].decode(), raw[1]
    if fields is None:
        return Entry(position, None)
    if len(fields) == 2 and fields[0] == FIELD:
        return Entry(position, fields[1])
    named = [part.decode(errors="replace") for part in fields]
    return Entry(position, msgspec.json.encode(named), foreign=True)


def _consumer(raw: Mapping[bytes, Any]) -> Consumer:
    return Consumer(raw[b"name"].decode(errors="replace"), raw[b"pending"], raw[b"idle"] / 1000)
